//! A dispatch that would access memory outside its buffers is refused before it is recorded.

use recurve::testing::{Tolerance, compare};
use recurve::{Activation, DType, Device, Shape, Tensor, TensorError as E};
use recurve_shaders::{DirectTile, Element, MatmulTile, Shader, Variant, params, reflect, samples};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{Dispatch, GpuKernels, Span, TensorKernels, gather_rows, strided_copy};
use recurve_tests::gpu;

/// Number of floats that exactly fill a size class of buffers, so that one more element is outside the buffer.
const COUNT: usize = 1024;

fn tensor(gpu: &Device) -> Tensor {
    Tensor::zeros(&[COUNT], DType::F32, gpu).unwrap()
}

fn record(gpu: &Gpu, v: &Variant, buffers: &[&Tensor], params: &[u8], groups: [u32; 3]) -> Result<(), E> {
    let pipeline = gpu.pipeline(v)?;
    let buffers: Vec<_> = buffers.iter().map(|t| t.gpu_buffer()).collect();
    gpu.record(Dispatch { pipeline: &pipeline, buffers: &buffers, params, groups, work: 0 })
}

fn refused(result: Result<(), E>, what: &str) {
    let e = result.expect_err(what);
    assert!(matches!(e, E::Argument { argument: "dispatch", .. }), "{e}");
    assert!(e.to_string().contains(what), "{e} does not say {what}");
}

/// Every kernel has a reach for each buffer that its module binds.
#[test]
fn every_kernel_says_how_far_it_reaches() {
    let size = |s: Shader| match s {
        Shader::Binary => size_of::<params::Binary>(),
        Shader::Copy => size_of::<params::Copy>(),
        Shader::Matmul | Shader::MatmulDirect | Shader::Matvec => size_of::<params::Matmul>(),
        _ => 0,
    };
    for (n, v) in samples().iter().enumerate() {
        let module = reflect(&v.compose().unwrap().source).unwrap();
        let (uniform, buffers) = (&module.bindings[0], &module.bindings[1..]);
        assert!(size(v.shader()) == 0 || uniform.size as usize == size(v.shader()));
        // All sizes are 1, with one timestep; flags ask for outputs. Fields that are floats become tiny numbers.
        let mut ones: Vec<u8> = (0..uniform.size / 4).flat_map(|_| 1u32.to_le_bytes()).collect();
        if uniform.size as usize == size_of::<params::Recurrent>() && v.compose().unwrap().source.contains("is_reverse")
        {
            let p = params::Recurrent {
                steps: 1,
                timesteps: 1,
                batch: 1,
                chunk_steps: 1,
                y_batch: 1,
                y_time: 1,
                flags: 1,
                directions: 1,
                ..params::Recurrent::default()
            };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::Conv {
            let p = params::Conv { base: 0, first: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::Mask {
            let p = params::Mask { first: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::Cumulate {
            let p = params::Cumulate { first: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::SumRows {
            let p = params::SumRows { shift: 0, first: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::TopK {
            let p = params::TopK { first: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::CtcPaths {
            let p = params::CtcPaths { first: 0, blank: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::CtcGradient {
            let p = params::CtcGradient { blank: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        if v.shader() == Shader::TrainNorm {
            let p = params::TrainNorm { first_time: 0, ..bytemuck::pod_read_unaligned(&ones) };
            ones.copy_from_slice(bytemuck::bytes_of(&p));
        }
        let reach = v.bounds().reach(&ones, [1, 1, 1]).unwrap_or_else(|e| panic!("{}#{n}: {e}", v.name()));
        assert_eq!(reach.len(), buffers.len(), "{}#{n}", v.name());
        for (b, reach) in buffers.iter().zip(&reach) {
            // A buffer that is written has a reach, and the reach is small.
            assert!(*reach < 1 << 24, "{}#{n}: {} {reach}", v.name(), b.name);
        }
        assert!(reach.iter().any(|&r| r > 0), "{}#{n}", v.name());
        // Parameters of the wrong size are an error, not a panic.
        assert!(v.bounds().reach(&ones[..ones.len() - 4], [1, 1, 1]).is_err() || reach.iter().all(|&r| r <= 1024));
        // The largest parameters have a large reach or are refused; nothing overflows.
        let most = vec![0xff; ones.len()];
        if let Ok(reach) = v.bounds().reach(&most, [u32::MAX; 3]) {
            let fixed = matches!(v.shader(), Shader::LoopProbe | Shader::SubgroupProbe);
            assert!(fixed || reach.iter().any(|&r| r >= u32::MAX.into()), "{}#{n}: {reach:?}", v.name());
        }
    }
}

#[test]
fn elementwise_kernels_stay_inside() {
    let device = gpu();
    let g = device.gpu().unwrap();
    let (a, b, c) = (tensor(&device), tensor(&device), tensor(&device));
    let n = COUNT as u32;
    let fill = |count| params::Fill { count, groups_x: 1 << 10, value: 1.0, unused: 0 };
    let v = Variant::fill(Element::F32);
    record(g, &v, &[&a], bytemuck::bytes_of(&fill(n)), [4, 1, 1]).unwrap();
    refused(record(g, &v, &[&a], bytemuck::bytes_of(&fill(n + 1)), [5, 1, 1]), "reaches");
    refused(record(g, &v, &[&a], bytemuck::bytes_of(&fill(u32::MAX)), [5, 1, 1]), "reaches");
    // A wrong number of buffers, and wrong parameters.
    refused(record(g, &v, &[&a, &b], bytemuck::bytes_of(&fill(n)), [4, 1, 1]), "2 buffers");
    refused(record(g, &v, &[&a], &[0; 4], [4, 1, 1]), "4 bytes");
    let e = record(g, &v, &[&a], bytemuck::bytes_of(&fill(n)), [u32::MAX, 1, 1]).unwrap_err();
    assert!(matches!(e, E::Workgroups { workgroups: 4_294_967_295, .. }), "{e}");

    let binary = |stride: u32, size: u32| {
        let mut dims = [[1, 0, 0, 0]; 6];
        dims[5] = [size, stride, 1, 0];
        params::Binary { count: n, groups_x: 1 << 10, dims, ..Default::default() }
    };
    let v = Variant::binary(Element::F32, 0);
    record(g, &v, &[&a, &b, &c], bytemuck::bytes_of(&binary(1, n)), [4, 1, 1]).unwrap();
    refused(record(g, &v, &[&a, &b, &c], bytemuck::bytes_of(&binary(2, n)), [4, 1, 1]), "reaches");
    refused(record(g, &v, &[&a, &b, &c], bytemuck::bytes_of(&binary(u32::MAX, n)), [4, 1, 1]), "reaches");
    refused(record(g, &v, &[&a, &b, &c], bytemuck::bytes_of(&binary(1, 0)), [4, 1, 1]), "zero");
    // A buffer that is written may not be bound twice; one that is read may.
    record(g, &v, &[&a, &a, &c], bytemuck::bytes_of(&binary(1, n)), [4, 1, 1]).unwrap();
    refused(record(g, &v, &[&a, &b, &a], bytemuck::bytes_of(&binary(1, n)), [4, 1, 1]), "twice");
    assert_eq!(c.to_vec().unwrap(), vec![2.0; COUNT]);
}

#[test]
fn strided_kernels_stay_inside() {
    let device = gpu();
    let g = device.gpu().unwrap();
    let (a, b) = (tensor(&device), tensor(&device));
    let span = |count, source, target| Span {
        shape: Shape::new(&[count]).unwrap(),
        source,
        source_strides: [1, 0, 0, 0, 0, 0],
        target,
        target_strides: [1, 0, 0, 0, 0, 0],
    };
    strided_copy(g, &span(COUNT - 1, 1, 0), &a, &b).unwrap();
    refused(strided_copy(g, &span(COUNT, 1, 0), &a, &b), "reaches");
    refused(strided_copy(g, &span(COUNT, 0, 1), &a, &b), "reaches");
    refused(strided_copy(g, &span(COUNT, 0, 0), &a, &a), "twice");
    let ids = Tensor::zeros(&[4], DType::U32, &device).unwrap();
    assert!(matches!(strided_copy(g, &span(4, 0, 0), &a, &ids), Err(E::DType { .. })));
    let second = Device::by_name(&format!("{}:{}", device.backend(), device.name())).unwrap();
    let far = Tensor::zeros(&[COUNT], DType::F32, &second);
    assert!(matches!(strided_copy(g, &span(4, 0, 0), &a, &far.unwrap()), Err(E::Device { .. })));

    let v = Variant::matmul(Element::F32, Element::F32, true, false, Activation::Linear, MatmulTile::SMALL);
    let sizes = params::Matmul { m: 32, n: 32, k: 32, columns: 32, depth: 32, ..Default::default() };
    let right = params::Matmul { a_inner: 32, a_inner_stride: 32, ..sizes };
    let c = tensor(&device);
    let run = |p: params::Matmul, groups| record(g, &v, &[&a, &b, &a, &c], bytemuck::bytes_of(&p), groups);
    run(right, [1, 1, 1]).unwrap();
    for (wrong, what) in [
        (params::Matmul { m: 33, ..right }, "reaches"),
        (params::Matmul { k: 33, depth: 33, ..right }, "reaches"),
        (params::Matmul { n: 33, columns: 33, ..right }, "reaches"),
        (params::Matmul { columns: 33, ..right }, "reaches"),
        (params::Matmul { depth: 33, ..right }, "reaches"),
        (params::Matmul { k: 33, ..right }, "larger than the whole"),
        (params::Matmul { n: 33, ..right }, "larger than the whole"),
        (params::Matmul { a_offset: 1, ..right }, "reaches"),
        (params::Matmul { b_offset: 1, ..right }, "reaches"),
        (params::Matmul { c_offset: 1, ..right }, "reaches"),
        (params::Matmul { a_inner_stride: 33, ..right }, "reaches"),
        (params::Matmul { a_inner: 31, a_outer_stride: 1000, ..right }, "reaches"),
        (params::Matmul { a_inner: 0, ..right }, "zero"),
        (params::Matmul { m: 0, ..right }, "zero"),
        (params::Matmul { k: 0, ..right }, "zero"),
    ] {
        refused(run(wrong, [1, 1, 1]), what);
    }
    refused(run(params::Matmul { c_batch: 1, ..right }, [1, 1, 2]), "reaches");
    // The reach of a product's rows is that of its last row, which may be less than that of the longest stride.
    let rows = params::Matmul { m: 3, n: 1, k: 1, a_inner: 2, a_outer_stride: 1023, a_inner_stride: 5, ..right };
    run(rows, [1, 1, 1]).unwrap();
    device.synchronize().unwrap();
}

/// Products computed in loops, for devices with a slow compiler, equal unrolled ones.
#[test]
fn a_product_in_parts_is_the_product() {
    let device = gpu();
    let g = device.gpu().unwrap();
    let (m, n, k) = (33u32, 35u32, 37u32);
    let values = |count: u32, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
    let (a, b) = (values(m * k, 0.37), values(n * k, 0.73));
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let [ms, ks, ns] = [m, k, n].map(|v| v as usize);
    let want = recurve_reference::matmul(&wide(&a), &wide(&b), &[], [ms, ks, ns], Activation::Tanh);
    let [a, b] = [a, b].map(|v| Tensor::from_f32(&v, &[v.len()], &device).unwrap());
    let p = params::Matmul { m, n, k, columns: n, depth: k, a_inner: m, a_inner_stride: k, ..Default::default() };
    for tile in [MatmulTile::FLAT, MatmulTile::WIDE, MatmulTile::SMALL, MatmulTile::LARGE] {
        for unrolled in [true, false] {
            let tile = MatmulTile { unrolled, ..tile };
            let v = Variant::matmul(Element::F32, Element::F32, true, false, Activation::Tanh, tile);
            let c = Tensor::full(&[ms, ns], -1234.5, DType::F32, &device).unwrap();
            let (rows, columns) = tile.size();
            let groups = [n.div_ceil(columns), m.div_ceil(rows), 1];
            record(g, &v, &[&a, &b, &a, &c], bytemuck::bytes_of(&p), groups).unwrap();
            compare(&c.to_vec().unwrap(), &want, Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{tile:?}: {e}"));
        }
    }
}

/// Products without workgroup memory equal products, whatever part of a tile is past the end, and their rows have the
/// same bits in tiles of every height.
#[test]
fn a_direct_product_is_the_product() {
    let device = gpu();
    let g = device.gpu().unwrap();
    let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for [m, n, k] in [[1, 1, 1], [1, 300, 64], [2, 7, 36], [5, 35, 37], [33, 35, 40], [70, 520, 128]] {
        let (a, b) = (values(m * k, 0.37), values(n * k, 0.73));
        let want = recurve_reference::matmul(&wide(&a), &wide(&b), &[], [m, k, n], Activation::Tanh);
        let [a, b] = [a, b].map(|v| Tensor::from_f32(&v, &[v.len()], &device).unwrap());
        let [rows, columns, depth] = [m, n, k].map(|v| v as u32);
        let p = params::Matmul {
            m: rows,
            n: columns,
            k: depth,
            columns,
            depth,
            a_inner: rows,
            a_inner_stride: depth,
            ..Default::default()
        };
        let mut first: Option<Vec<f32>> = None;
        for height in [1, 2, 4, 8] {
            for step in [false, true] {
                if step && !k.is_multiple_of(4) {
                    continue;
                }
                let tile = DirectTile::for_product(height, columns);
                assert_eq!(tile.rows, height);
                let v = Variant::matmul_direct(Element::F32, Element::F32, false, Activation::Tanh, tile, step);
                let c = Tensor::full(&[m, n], -1234.5, DType::F32, &device).unwrap();
                let (tile_m, tile_n) = tile.size();
                let groups = [columns.div_ceil(tile_n), rows.div_ceil(tile_m), 1];
                record(g, &v, &[&a, &b, &a, &c], bytemuck::bytes_of(&p), groups).unwrap();
                let c = c.to_vec().unwrap();
                let at = format!("[{m}, {n}, {k}], {tile:?}");
                compare(&c, &want, Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{at}: {e}"));
                // Hardware may contract a multiplication and an addition in one variant and not in another.
                if g.is_software() {
                    assert_eq!(*first.get_or_insert_with(|| c.clone()), c, "{at}");
                }
            }
        }
    }
}

/// An id past the end of the table reads the last row, even if the host does not know the ids.
#[test]
fn ids_that_nobody_checked_stay_in_the_table() {
    let device = gpu();
    let g = device.gpu().unwrap();
    let table = Tensor::from_f32(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &device).unwrap();
    let bits = Tensor::from_f32(&[f32::from_bits(!0), f32::from_bits(0), f32::from_bits(7)], &[3], &device).unwrap();
    let ids = bits.reinterpreted(DType::U32).unwrap();
    // A reinterpreted tensor has no known bound.
    assert_eq!(ids.bound(), u32::MAX);
    assert!(matches!(table.gather(&ids), Err(E::Index { index: 0xffff_ffff, .. })));
    let out = Tensor::zeros(&[3, 2], DType::F32, &device).unwrap();
    gather_rows(g, &table, &ids, 0..3, &out, 0).unwrap();
    assert_eq!(out.to_vec().unwrap(), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    refused(gather_rows(g, &table, &ids, 0..1000, &out, 0), "reaches");
    refused(gather_rows(g, &table, &ids, 0..3, &out, 1 << 20), "reaches");
    // The same for a tensor that has not been written, and for types of different size.
    let shape = Shape::new(&[4]).unwrap();
    assert_eq!(Tensor::gpu_uninit(g, shape, DType::U32, "test").unwrap().bound(), u32::MAX);
    assert!(matches!(table.clone().to_device(&Device::Cpu).unwrap().reinterpreted(DType::U32), Err(E::DType { .. })));
    if g.has_f16() {
        assert!(matches!(table.reinterpreted(DType::F16), Err(E::DType { .. })));
    }
}
