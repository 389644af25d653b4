//! Writes every sample of `recurve_shaders::samples()` to a folder, translated to a target language, so that the
//! target's own compiler can be run on them:
//! ```text
//! cargo run --release -p recurve-shaders --example samples -- --target wgsl|hlsl|msl|spirv \
//!     [--shader-model 5_1|6_2] DIR
//! ```
//!
//! Files are named by kernel and number, such as `lstm_scan_41.hlsl`; the number is the index of the sample in
//! `samples()` for every target. `wgsl` is the form for browsers. Modules are translated as wgpu translates Recurve's:
//! without checks of indices and loops, and without zeroing workgroup memory. Shader model 5.1 (FXC) has no f16 and no
//! subgroups, and takes seconds for long unrolled code; samples with any of these are left out, because devices do not
//! use them there.
//!
//! `samples.tsv` in the same folder lists for each file its kernel, number, workgroup size, bytes of workgroup memory,
//! and whether it needs f16 and subgroups. The entry point is `main`, in MSL `main_`.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use recurve_shaders::{Target, reflect, samples};
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: samples --target wgsl|hlsl|msl|spirv [--shader-model 5_1|6_2] DIR";
    let (mut target, mut model, mut dir) = (None, hlsl::ShaderModel::V6_2, None);
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--target" => target = args.next(),
            "--shader-model" => {
                model = match args.next().as_deref() {
                    Some("5_1") => hlsl::ShaderModel::V5_1,
                    Some("6_2") => hlsl::ShaderModel::V6_2,
                    _ => return Err(usage.into()),
                }
            }
            _ if dir.is_none() && !a.starts_with('-') => dir = Some(PathBuf::from(a)),
            _ => return Err(usage.into()),
        }
    }
    let (Some(target), Some(dir)) = (target, dir) else { return Err(usage.into()) };
    let extension = match target.as_str() {
        "wgsl" | "hlsl" => target.as_str(),
        "msl" => "metal",
        "spirv" => "spv",
        _ => return Err(usage.into()),
    };
    std::fs::create_dir_all(&dir)?;

    let mut list = String::from("file\tkernel\tnumber\tworkgroup_size\tworkgroup_bytes\tf16\tsubgroups\n");
    let (mut written, mut left_out) = (0, 0);
    for (number, variant) in samples().into_iter().enumerate() {
        let stem = variant.name();
        let composed = variant.compose()?;
        let f16 = composed.source.starts_with("enable f16;");
        if target == "hlsl" && model == hlsl::ShaderModel::V5_1 && (f16 || composed.subgroups || variant.is_long()) {
            left_out += 1;
            continue;
        }
        let r = reflect(&composed.source)?;
        let capabilities = Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
        let info = Validator::new(ValidationFlags::all(), capabilities).validate(&r.module)?;
        let bytes = match target.as_str() {
            "wgsl" => composed.wgsl(Target::Browser).into_owned().into_bytes(),
            "hlsl" => {
                let options = hlsl::Options {
                    shader_model: model,
                    fake_missing_bindings: true,
                    zero_initialize_workgroup_memory: false,
                    restrict_indexing: false,
                    force_loop_bounding: false,
                    ..hlsl::Options::default()
                };
                let mut text = String::new();
                hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
                    .write(&r.module, &info, None)?;
                text.into_bytes()
            }
            "msl" => {
                let options = msl::Options {
                    lang_version: (2, 4),
                    fake_missing_bindings: true,
                    zero_initialize_workgroup_memory: false,
                    force_loop_bounding: false,
                    ..msl::Options::default()
                };
                msl::write_string(&r.module, &info, &options, &msl::PipelineOptions::default())?.0.into_bytes()
            }
            _ => {
                let options = spv::Options {
                    lang_version: (1, 3),
                    zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
                    force_loop_bounding: false,
                    ..spv::Options::default()
                };
                let words = spv::write_vec(&r.module, &info, &options, None)?;
                words.iter().flat_map(|w| w.to_le_bytes()).collect()
            }
        };
        let file = format!("{stem}_{number}.{extension}");
        std::fs::write(dir.join(&file), bytes)?;
        writeln!(
            list,
            "{file}\t{stem}\t{number}\t{}\t{}\t{f16}\t{}",
            r.workgroup_size[0], r.workgroup_bytes, composed.subgroups
        )?;
        written += 1;
    }
    std::fs::write(dir.join("samples.tsv"), list)?;
    println!("{written} samples written to {}, {left_out} left out", dir.display());
    Ok(())
}
