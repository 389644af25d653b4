//! Every variant is parsed and validated, and translated to the languages of Vulkan, Metal and DX12.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use recurve_shaders::params::Flags;
use recurve_shaders::{BindingKind, Fused, SHADERS, Shader, Target, Variant, params, reflect, samples};
use recurve_vocabulary::Activation;
use std::collections::BTreeSet;
use std::process::Command;

struct Checked {
    name: String,
    variant: Variant,
    shader: Shader,
    subgroups: bool,
    source: String,
    module: naga::Module,
    info: ModuleInfo,
}

fn checked() -> Vec<Checked> {
    samples()
        .into_iter()
        .enumerate()
        .map(|(i, variant)| {
            let name = format!("{}#{i}", variant.name());
            let composed = variant.compose().unwrap_or_else(|e| panic!("{name}: {e}"));
            let reflection = reflect(&composed.source).unwrap_or_else(|e| {
                panic!("{name}: {e}\n{}", numbered(&composed.source));
            });
            let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP)
                .validate(&reflection.module)
                .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&composed.source)));
            let (shader, subgroups) = (variant.shader(), composed.subgroups);
            Checked { name, variant, shader, subgroups, source: composed.source, module: reflection.module, info }
        })
        .collect()
}

fn numbered(source: &str) -> String {
    (1..).zip(source.lines()).map(|(n, l)| format!("{n:4} {l}\n")).collect()
}

#[test]
fn every_activation_has_its_case() {
    let (_, source) = recurve_shaders::snippet("activations").unwrap();
    for f in Activation::ALL.into_iter().filter(|f| *f != Activation::Linear) {
        assert!(source.contains(&format!("case {}u:", f.code())), "{f:?}");
    }
}

#[test]
fn every_kernel_has_a_sample() {
    let have: BTreeSet<_> = samples().iter().map(|v| v.shader()).collect();
    assert_eq!(have, SHADERS.iter().copied().collect());
}

/// Every cell's snippet occurs in a sample of each kernel under the cell's name, and the list of cells is complete.
#[test]
fn every_cell_has_its_samples() {
    let have: BTreeSet<_> = samples().iter().map(|v| v.name()).collect();
    let mut snippets = BTreeSet::new();
    for cell in Fused::CELLS {
        let fused = Fused::of(cell.kind).unwrap();
        assert_eq!(fused.gates as usize, cell.kind.gates(), "{cell:?}");
        assert_eq!(fused.names, ["scan", "step", "grid"].map(|s| format!("{}_{s}", fused.snippet)), "{cell:?}");
        assert!(fused.names.iter().all(|n| have.contains(n)), "{cell:?}");
        snippets.insert(format!("{}.wgsl", fused.snippet));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/wgsl/cells");
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), snippets);
}

#[test]
fn every_variant_translates_to_spirv_and_passes_spirv_val() {
    let validator = Command::new("spirv-val").arg("--version").output().is_ok();
    let dir = tempfile::tempdir().unwrap();
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    for c in checked() {
        let words = spv::write_vec(&c.module, &c.info, &options, None).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        if validator {
            let path = dir.path().join("module.spv");
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            std::fs::write(&path, bytes).unwrap();
            let out = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(&path).output().unwrap();
            assert!(out.status.success(), "{}: {}", c.name, String::from_utf8_lossy(&out.stderr));
        }
    }
    if !validator {
        eprintln!("spirv-val is not installed: SPIR-V was written but not validated by it");
    }
}

#[test]
fn every_variant_translates_to_metal_and_direct3d() {
    for c in checked() {
        let pipeline = msl::PipelineOptions::default();
        let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..msl::Options::default() };
        let (text, _) =
            msl::write_string(&c.module, &c.info, &options, &pipeline).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        assert!(text.contains("kernel void"), "{}", c.name);

        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_2,
            fake_missing_bindings: true,
            ..hlsl::Options::default()
        };
        let mut text = String::new();
        let pipeline = hlsl::PipelineOptions::default();
        hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&c.module, &c.info, None)
            .unwrap_or_else(|e| panic!("{}: {e}", c.name));
        assert!(text.contains("numthreads"), "{}", c.name);
    }
}

/// A lane's array that is indexed at run time spills to memory on hardware GPUs, so the kernels use unrolled variables
/// instead. Only `resident` variants, which are for software rasterisers, have such an array.
#[test]
fn only_resident_variants_have_private_arrays() {
    let mut resident = 0;
    for c in checked() {
        let is_array = |ty| matches!(c.module.types[ty].inner, naga::TypeInner::Array { .. });
        let functions = c.module.functions.iter().map(|(_, f)| f);
        let entries = c.module.entry_points.iter().map(|e| &e.function);
        for (_, v) in functions.chain(entries).flat_map(|f| f.local_variables.iter()) {
            assert!(!is_array(v.ty), "{}: {:?}\n{}", c.name, v.name, c.source);
        }
        let private =
            c.module.global_variables.iter().any(|(_, v)| v.space == naga::AddressSpace::Private && is_array(v.ty));
        assert_eq!(private, c.source.contains("const RESIDENT: bool = true;"), "{}", c.name);
        resident += usize::from(private);
    }
    assert!(resident > 0);
}

#[test]
fn parameter_structs_have_the_layout_of_their_wgsl() {
    for c in checked() {
        let fields = match c.shader {
            Shader::Binary => params::Binary::FIELDS,
            Shader::Conv => params::Conv::FIELDS,
            Shader::Copy => params::Copy::FIELDS,
            Shader::CrossEntropy => params::CrossEntropy::FIELDS,
            Shader::CtcGradient => params::CtcGradient::FIELDS,
            Shader::CtcLabels => params::CtcLabels::FIELDS,
            Shader::CtcPaths => params::CtcPaths::FIELDS,
            Shader::Cumulate => params::Cumulate::FIELDS,
            Shader::Fill => params::Fill::FIELDS,
            Shader::Gather => params::Gather::FIELDS,
            Shader::Noise => params::Noise::FIELDS,
            Shader::Normalize => params::Normalize::FIELDS,
            Shader::Peak => params::Peak::FIELDS,
            Shader::Pool => params::Pool::FIELDS,
            Shader::GridProbe => params::GridProbe::FIELDS,
            Shader::SubgroupProbe => params::SubgroupProbe::FIELDS,
            Shader::LayerNorm => params::LayerNorm::FIELDS,
            Shader::LoopProbe => params::LoopProbe::FIELDS,
            Shader::Mask => params::Mask::FIELDS,
            Shader::Matmul | Shader::MatmulDirect | Shader::Matvec => params::Matmul::FIELDS,
            Shader::Reduce => params::Reduce::FIELDS,
            Shader::Sample => params::Sample::FIELDS,
            Shader::Scatter => params::Scatter::FIELDS,
            Shader::Softmax => params::Softmax::FIELDS,
            Shader::SumRows => params::SumRows::FIELDS,
            Shader::SumRuns => params::SumRuns::FIELDS,
            Shader::Take => params::Take::FIELDS,
            Shader::TopK => params::TopK::FIELDS,
            Shader::Select => params::Select::FIELDS,
            Shader::Function | Shader::Slope | Shader::Unary => params::Unary::FIELDS,
            Shader::Update => params::Update::FIELDS,
            Shader::GeneralScan
            | Shader::GeneralStep
            | Shader::Grid
            | Shader::LinearCarry
            | Shader::LinearScan
            | Shader::PointwiseScan
            | Shader::Scan
            | Shader::StackWave
            | Shader::Step
            | Shader::TrainBackward
            | Shader::TrainForward
            | Shader::TrainScan
            | Shader::TrainScanBack => params::Recurrent::FIELDS,
            Shader::TrainInput => params::TrainInput::FIELDS,
            Shader::TrainNorm => params::TrainNorm::FIELDS,
        };
        let (_, ty) = c.module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).unwrap();
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("Params is a struct") };
        let theirs: Vec<_> = members
            .iter()
            .map(|m| {
                let size = c.module.types[m.ty].inner.size(c.module.to_ctx());
                (m.name.clone().unwrap(), m.offset as usize, size as usize)
            })
            .collect();
        let ours: Vec<_> = fields.iter().map(|&(n, o, s)| (n.to_owned(), o, s)).collect();
        assert_eq!(ours, theirs, "{}", c.name);
        assert_eq!(ours.iter().map(|f| f.2).sum::<usize>(), *span as usize, "{}: padding", c.name);
        assert!(*span as usize <= params::LARGEST, "{}: parameters of {span} bytes", c.name);
    }
}

#[test]
fn bindings_fit_the_default_limits_and_only_the_first_is_uniform() {
    for v in samples() {
        let r = reflect(&v.compose().unwrap().source).unwrap();
        assert_eq!(r.bindings[0].kind, BindingKind::Uniform);
        assert!(r.bindings[1..].iter().all(|b| b.kind != BindingKind::Uniform));
        assert!(r.bindings.len() <= 9, "eight storage buffers are what WebGPU guarantees");
    }
}

#[test]
fn a_broken_module_is_refused_with_its_line() {
    let e = reflect("fn main() {\n  let x = ;\n}").unwrap_err();
    assert!(e.to_string().starts_with("line 2:"), "{e}");
    assert!(reflect("@compute @workgroup_size(1) fn other() {}").is_err());
    let _ = Variant::loop_probe();
}

/// The size of workgroup memory from naga's layout, as WebGPU counts it: each variable rounded up to a multiple of 16
/// bytes.
fn workgroup_bytes(module: &naga::Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let variables = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    variables.map(|(_, v)| layouter[v.ty].size.next_multiple_of(16)).sum()
}

#[test]
fn workgroup_memory_is_what_hosts_reckon_with_and_direct3d_has() {
    let (mut chosen, mut most) = (0, 0);
    for c in checked() {
        let bytes = workgroup_bytes(&c.module);
        match c.variant.workgroup_bytes {
            Some(stated) => {
                assert_eq!(bytes, stated, "{}", c.name);
                chosen += 1;
            }
            None => assert!(bytes <= Variant::LEAST_WORKGROUP_BYTES, "{}: {bytes}", c.name),
        }
        assert!(bytes <= Variant::DIRECT3D_WORKGROUP_BYTES, "{}: {bytes}", c.name);
        most = most.max(bytes);
    }
    assert!(chosen > 100 && most > Variant::LEAST_WORKGROUP_BYTES, "{chosen} layouts of up to {most} bytes");
}

/// Whether a module calls subgroup functions.
fn calls_subgroups(module: &naga::Module) -> bool {
    let functions = module.functions.iter().map(|(_, f)| f);
    let mut bodies: Vec<_> =
        functions.chain(module.entry_points.iter().map(|e| &e.function)).map(|f| &f.body).collect();
    while let Some(block) = bodies.pop() {
        for statement in block.iter() {
            use naga::Statement as S;
            match statement {
                S::SubgroupBallot { .. } | S::SubgroupGather { .. } | S::SubgroupCollectiveOperation { .. } => {
                    return true;
                }
                S::Block(b) => bodies.push(b),
                S::If { accept, reject, .. } => bodies.extend([accept, reject]),
                S::Switch { cases, .. } => bodies.extend(cases.iter().map(|c| &c.body)),
                S::Loop { body, continuing, .. } => bodies.extend([body, continuing]),
                _ => {}
            }
        }
    }
    false
}

#[test]
fn modules_say_whether_they_use_subgroups_and_tell_browsers() {
    let mut with = 0;
    for c in checked() {
        assert_eq!(c.subgroups, calls_subgroups(&c.module), "{}", c.name);
        let composed = c.variant.compose().unwrap();
        assert_eq!(composed.wgsl(Target::Naga), c.source, "{}", c.name);
        let browser = composed.wgsl(Target::Browser);
        assert_eq!(browser.starts_with("enable subgroups;\n"), c.subgroups, "{}", c.name);
        assert_eq!(browser.trim_start_matches("enable subgroups;\n"), c.source, "{}", c.name);
        with += usize::from(c.subgroups);
    }
    assert!(with > 1 && with < samples().len() / 2, "{with}");
}

/// The constants that kernels test are equal to the bits that the host sets.
#[test]
fn flags_are_the_bits_of_the_kernels() {
    let none = Flags::default();
    let bits = [
        ("WRITES_Y", Flags { writes_y: true, ..none }),
        ("READING_ORDER", Flags { reading_order: true, ..none }),
        ("REVERSE", Flags { reverse: [true, false], ..none }),
        ("ZERO_H", Flags { zero_h: true, ..none }),
        ("ZERO_C", Flags { zero_c: true, ..none }),
        ("REPEATS", Flags { repeats: true, ..none }),
    ];
    let second = Flags { reverse: [false, true], ..none };
    assert_eq!(second.bits(), bits[2].1.bits() << 1);
    let mut kernels = 0;
    for c in checked().iter().filter(|c| c.source.contains("p.flags")) {
        kernels += 1;
        for (name, flags) in bits {
            assert!(c.source.contains(&format!("const {name}: u32 = {}u;", flags.bits())), "{}: {name}", c.name);
        }
    }
    assert!(kernels > 100, "{kernels} samples read flags");
}
