//! Misuse of the façade: every public function returns a typed error or the right result, and the device stays usable.
//! (What the façade prevents at compile time is in the doc tests of `recurve`.)

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Bias, CallArgs, Cell, CellKind, DType, Dense, Device, Direction, DirectionWeights, Embedding,
    ForwardArgs, GateOrder, Gru, Lstm, MatmulOptions, Outputs, Recurrent, RecurrentConfig, RecurrentLayer,
    RecurrentSpec, Reduction, SampleOptions, Sequential, Shape, State, Strategy, Tensor, TensorError as E,
    WeightStorage, Weights, concat,
};
use recurve_tests::{Case, Random, devices, gpu, own_gpu, paths};

const FORWARD: [Direction; 1] = [Direction::Forward];

fn case(seed: u64, cell: Cell, sizes: [usize; 4]) -> Case {
    Case::random(seed, cell, &FORWARD, sizes)
}

fn f32s(device: &Device, dims: &[usize]) -> Tensor {
    let count = dims.iter().product();
    Tensor::from_f32(&Random(7).floats(count, 1.0), dims, device).unwrap()
}

fn still_works(device: &Device) {
    let x = Tensor::from_f32(&[1.0, 2.0], &[2], device).unwrap();
    assert_eq!(x.add(&x).unwrap().to_vec().unwrap(), [2.0, 4.0], "{device}");
}

fn recurrent(seed: u64, cell: Cell, sizes: [usize; 4], device: &Device) -> Recurrent {
    case(seed, cell, sizes).layer(device)
}

/// The elements of an id tensor never exceed its bound, whatever operation made it.
#[test]
fn the_bound_of_indices_holds_however_they_were_made() {
    for device in devices() {
        let ids = Tensor::from_u32(&[3, 0, 7, 1, 2, 5], &[2, 3], &device).unwrap();
        let more = Tensor::from_u32(&[9, 8, 4], &[1, 3], &device).unwrap();
        let logits = f32s(&device, &[4, 6]);
        let o = SampleOptions { temperature: 1.5, top_k: Some(3), seed: 3, position: 1, ..SampleOptions::default() };
        let other = if device == Device::Cpu { gpu() } else { Device::Cpu };
        let made = [
            ("from_u32", ids.clone()),
            ("from_i64", Tensor::from_i64(&[3, 0, 7], &[3], &device).unwrap()),
            ("full", Tensor::full(&[3], 6.9, DType::U32, &device).unwrap()),
            ("full, largest", Tensor::full(&[3], 4_294_967_040.0, DType::U32, &device).unwrap()),
            ("zeros", Tensor::zeros(&[3], DType::U32, &device).unwrap()),
            ("slice", ids.slice(1, 1..3).unwrap()),
            ("transpose", ids.transpose(&[1, 0]).unwrap()),
            ("reshape", ids.reshape(&[6]).unwrap()),
            ("concat", concat(&[&ids, &more], 0).unwrap()),
            ("concat, larger first", concat(&[&more, &ids], 0).unwrap()),
            ("to_device", ids.to_device(&other).unwrap()),
            ("argmax", logits.argmax(1).unwrap()),
            ("argmax of rows", logits.argmax(0).unwrap()),
            ("sample", logits.sample(&o).unwrap()),
            ("mask of ids", ids.mask(3.0).unwrap()),
            ("mask of floats", logits.mask(0.0).unwrap()),
        ];
        for (how, t) in made {
            let largest = t.to_vec_u32().unwrap().into_iter().max().unwrap();
            assert!(t.bound() >= largest, "{device}: {how}: {} below {largest}", t.bound());
            // The bound of indices is the size of the axis that they index.
            if how.starts_with("argmax") || how == "sample" {
                assert!(t.bound() < 6, "{device}: {how}: {}", t.bound());
            }
        }
        // An id equal to the number of rows is refused, the one below it is read.
        let table = f32s(&device, &[8, 2]);
        assert!(table.gather(&ids).is_ok());
        assert!(matches!(f32s(&device, &[7, 2]).gather(&ids), Err(E::Index { index: 7, len: 7, .. })));
        assert!(matches!(table.gather(&concat(&[&ids, &more], 0).unwrap()), Err(E::Index { index: 9, .. })));
        still_works(&device);
    }
}

/// A float never becomes an index, whatever its bits.
#[test]
fn floats_are_no_indices() {
    for device in devices() {
        let bits = Tensor::from_f32(&[f32::from_bits(!0), f32::from_bits(40)], &[2], &device).unwrap();
        assert!(matches!(f32s(&device, &[4, 2]).gather(&bits), Err(E::DType { argument: "ids", .. })));
        assert!(matches!(bits.to_dtype(DType::U32), Err(E::DType { .. })));
        // Numbers that U32 cannot represent are refused, not clamped.
        for value in [-1.0, f32::NAN, f32::INFINITY, 4_294_967_296.0] {
            let e = Tensor::full(&[2], value, DType::U32, &device).unwrap_err();
            assert!(matches!(e, E::Argument { argument: "value", .. }), "{e}");
            let ids = Tensor::from_u32(&[0, 1], &[2], &device).unwrap();
            assert!(matches!(ids.mask(value), Err(E::Argument { argument: "value", .. })));
        }
        still_works(&device);
    }
}

#[test]
fn no_tensor_has_no_elements() {
    assert_eq!(Shape::new(&[3, 0]), None);
    assert_eq!(Shape::new(&[0]), None);
    assert_eq!(Shape::new(&[usize::MAX / 2, 2]), None, "bytes that cannot be counted");
    assert_eq!(Shape::new(&[1 << 62]), None);
    assert_eq!(Shape::new(&[]).map(|s| s.count()), Some(1));
    for device in devices() {
        for dims in [&[0][..], &[2, 0], &[0, usize::MAX]] {
            for dtype in [DType::F32, DType::U32] {
                assert!(matches!(Tensor::zeros(dims, dtype, &device), Err(E::Argument { argument: "dims", .. })));
            }
            assert!(matches!(Tensor::from_f32(&[], dims, &device), Err(E::Argument { .. })));
            assert!(matches!(Tensor::from_u32(&[], dims, &device), Err(E::Argument { .. })));
            assert!(matches!(f32s(&device, &[2, 2]).reshape(dims), Err(E::Shape { .. })));
        }
        let scalar = f32s(&device, &[]);
        assert!(matches!(scalar.slice(0, 0..1), Err(E::Argument { .. })));
        assert!(matches!(scalar.layer_norm(&f32s(&device, &[2, 1]), 1e-5), Err(E::Shape { argument: "self", .. })));
        assert!(matches!(scalar.mask(0.0), Err(E::Shape { .. })));
        assert!(matches!(scalar.argmax(0), Err(E::Argument { .. })));
        assert!(matches!(scalar.matmul(&scalar), Err(E::Shape { .. })));
        assert!(matches!(concat(&[&scalar], 0), Err(E::Argument { .. })));
        assert_eq!(scalar.softmax().unwrap().to_vec().unwrap(), [1.0]);
        assert_eq!(scalar.transpose(&[]).unwrap().to_vec().unwrap(), scalar.to_vec().unwrap());
        still_works(&device);
    }
}

/// A candidate works only with the layer and the shape for which it was listed.
#[test]
fn candidates_belong_to_one_layer_and_shape() {
    let gpu = gpu();
    let sizes = [2, 3, 4, 8];
    for cell in [Cell::LSTM, Cell::MINGRU, Cell { layer_norm: Some(1e-5), ..Cell::GRU }] {
        let own = recurrent(1, cell, sizes, &gpu);
        let candidates = own.candidates(2, 3).unwrap();
        assert!(candidates.len() >= 2, "{cell:?}");
        let twin = recurrent(1, cell, sizes, &gpu);
        let larger = recurrent(1, cell, [2, 3, 4, 300], &gpu);
        let others = [Device::Cpu, own_gpu()].map(|d| (d.clone(), recurrent(1, cell, sizes, &d)));
        let x = f32s(&gpu, &[2, 3, 4]);
        let with = |c| ForwardArgs { candidate: Some(c), ..ForwardArgs::default() };
        for c in candidates {
            let refused = |e: E, what: &str| {
                assert!(matches!(e, E::Argument { argument: "candidate", .. }), "{e}");
                assert!(e.to_string().contains(what), "{e}");
            };
            // Other layers of the same and of another size; the same layer with other shapes.
            refused(twin.forward(&x, &with(c)).unwrap_err(), "another layer");
            refused(larger.forward(&x, &with(c)).unwrap_err(), "another layer");
            refused(own.forward(&f32s(&gpu, &[1, 3, 4]), &with(c)).unwrap_err(), "another shape");
            refused(own.forward(&f32s(&gpu, &[2, 2, 4]), &with(c)).unwrap_err(), "another shape");
            refused(own.forward(&x, &ForwardArgs { time_major: true, ..with(c) }).unwrap_err(), "another shape");
            // Layers on other devices.
            for (other, layer) in &others {
                refused(layer.forward(&f32s(other, &[2, 3, 4]), &with(c)).unwrap_err(), "another layer");
            }
        }
        still_works(&gpu);
    }
    let layer = recurrent(1, Cell::LSTM, sizes, &gpu);
    for (b, t) in [(0, 3), (2, 0), (usize::MAX, 3), (2, usize::MAX), (1 << 32, 1)] {
        assert!(matches!(layer.candidates(b, t), Err(E::Argument { argument: "batch, timesteps", .. })), "{b} {t}");
        layer.strategy(b, t);
    }
    // Sizes that no tensor has, but that do not overflow.
    for (b, t) in [(u32::MAX as usize, 1), (1, u32::MAX as usize)] {
        assert!(!layer.candidates(b, t).unwrap().is_empty());
    }
    assert!(recurrent(1, Cell::LSTM, sizes, &Device::Cpu).candidates(2, 3).unwrap().is_empty());
}

/// A token table of another layer is refused, even if the sizes are equal.
#[test]
fn token_tables_belong_to_one_layer() {
    for device in devices() {
        let [a, b] = [1, 2].map(|seed| recurrent(seed, Cell::GRU, [2, 3, 4, 8], &device));
        let table = a.token_table(&f32s(&device, &[5, 4])).unwrap();
        let ids = Tensor::from_u32(&[4; 6], &[2, 3], &device).unwrap();
        assert!(a.forward_tokens(&ids, &table, &ForwardArgs::default()).is_ok());
        let e = b.forward_tokens(&ids, &table, &ForwardArgs::default()).unwrap_err();
        assert!(matches!(e, E::Argument { argument: "table", .. }), "{e}");
        let beyond = Tensor::from_u32(&[5; 6], &[2, 3], &device).unwrap();
        let e = a.forward_tokens(&beyond, &table, &ForwardArgs::default()).unwrap_err();
        assert!(matches!(e, E::Index { index: 5, len: 5, .. }), "{e}");
        still_works(&device);
    }
}

fn stack_of<'a>(
    cell: Cell,
    i: usize,
    h: usize,
    layers: [&'a [(Direction, &'a DirectionWeights<f32>)]; 2],
) -> RecurrentConfig<'a> {
    RecurrentConfig { layers: layers.to_vec(), ..RecurrentConfig::new(cell, i, h, &[]) }
}

fn stacked(cell: Cell, sizes: [usize; 2], device: &Device) -> recurve::TensorError {
    let [i, h] = sizes;
    let (bottom, top) = (case(1, cell, [1, 1, i, h]), case(2, cell, [1, 1, h, h]));
    let pairs = [&bottom, &top].map(|c| [(Direction::Forward, &c.directions[0].1)]);
    let short = DirectionWeights { w_hh: vec![0.0; 3], ..top.directions[0].1.clone() };
    let wrong = [(Direction::Forward, &short)];
    Recurrent::new(&stack_of(cell, i, h, [&pairs[0], &wrong]), device).unwrap_err()
}

/// A stack checks its weights and the arguments of a call as a single layer does.
#[test]
fn a_stack_refuses_what_its_layers_refuse() {
    let gpu = gpu();
    let (b, t, i, h) = (2, 3, 4, 8);
    for cell in [Cell::LSTM, Cell::GRU] {
        let e = stacked(cell, [i, h], &gpu);
        assert!(matches!(e, E::Argument { argument: "w_hh", .. }), "{e}");
        let (bottom, top) = (case(1, cell, [b, t, i, h]), case(2, cell, [b, t, h, h]));
        let pairs = [&bottom, &top].map(|c| [(Direction::Forward, &c.directions[0].1)]);
        let stack = Recurrent::new(&stack_of(cell, i, h, [&pairs[0], &pairs[1]]), &gpu).unwrap();
        let x = f32s(&gpu, &[b, t, i]);
        let state = f32s(&gpu, &[2, b, h]);
        let by_step = ForwardArgs { strategy: Strategy::Step, ..ForwardArgs::default() };
        let run = |x: &Tensor, args: &ForwardArgs<'_>| stack.forward(x, args);
        let right = run(&x, &ForwardArgs { h0: Some(&state), ..by_step }).unwrap();
        assert_eq!(right.h.dims(), [2, b, h]);
        let refused = |x: &Tensor, args: &ForwardArgs<'_>| run(x, args).unwrap_err();
        assert!(matches!(refused(&f32s(&gpu, &[b, t, 64]), &by_step), E::Shape { argument: "x", .. }));
        assert!(matches!(refused(&f32s(&Device::Cpu, &[b, t, i]), &by_step), E::Device { argument: "x", .. }));
        assert!(matches!(refused(&f32s(&own_gpu(), &[b, t, i]), &by_step), E::Device { argument: "x", .. }));
        for bad in [f32s(&gpu, &[1, b, h]), f32s(&gpu, &[2, b, 64]), f32s(&gpu, &[2, 1, h]), f32s(&gpu, &[2])] {
            let e = refused(&x, &ForwardArgs { h0: Some(&bad), ..by_step });
            assert!(matches!(e, E::Shape { argument: "h0", .. }), "{e}");
        }
        let ids = Tensor::zeros(&[2, b, h], DType::U32, &gpu).unwrap();
        let e = refused(&x, &ForwardArgs { h0: Some(&ids), ..by_step });
        assert!(matches!(e, E::DType { argument: "h0", got: DType::U32, .. }), "{e}");
        let away = f32s(&Device::Cpu, &[2, b, h]);
        let e = refused(&x, &ForwardArgs { h0: Some(&away), ..by_step });
        assert!(matches!(e, E::Device { argument: "h0", .. }), "{e}");
        let lengths = Tensor::from_u32(&[4, 1], &[b], &gpu).unwrap();
        let e = refused(&x, &ForwardArgs { lengths: Some(&lengths), ..by_step });
        assert!(matches!(e, E::Argument { argument: "lengths", .. }), "{e}");
        if cell == Cell::GRU {
            for strategy in [Strategy::Step, Strategy::Scan, Strategy::Auto] {
                let e = refused(&x, &ForwardArgs { c0: Some(&state), strategy, ..ForwardArgs::default() });
                assert!(matches!(e, E::Argument { argument: "c0", .. }), "{e}");
            }
        }
        // The same tensor as both initial states and as arguments that are only read.
        if cell == Cell::LSTM {
            let before = state.to_vec().unwrap();
            let args = ForwardArgs { h0: Some(&state), c0: Some(&state), outputs: Outputs::Last, ..by_step };
            let last = run(&x, &args).unwrap();
            let all = run(&x, &ForwardArgs { outputs: Outputs::All, ..args }).unwrap();
            assert_eq!(last.h.to_vec().unwrap(), all.h.to_vec().unwrap());
            assert_eq!(state.to_vec().unwrap(), before);
        }
        still_works(&gpu);
    }
}

fn layer_of(spec: &RecurrentSpec, device: &Device) -> RecurrentLayer {
    let mut weights = Weights::new();
    let (g, h, i) = (spec.cell.kind.gates(), spec.units, 4);
    for l in 0..spec.num_layers {
        let input = if l == 0 { i } else { h };
        for (part, dims) in [("weight_ih", [g * h, input]), ("weight_hh", [g * h, h])] {
            let data = Random(l as u64 + 1).floats(dims[0] * dims[1], 0.3);
            weights.insert(format!("{part}_l{l}"), &dims, data).unwrap();
        }
        for part in ["bias_ih", "bias_hh"] {
            weights.insert(format!("{part}_l{l}"), &[g * h], vec![0.1; g * h]).unwrap();
        }
    }
    RecurrentLayer::new("layer", spec, i, &weights, "", device).unwrap()
}

/// States of the wrong type, device or cell are refused with the same message on the CPU, with each strategy, and as a
/// wavefront.
#[test]
fn states_of_stacked_layers_are_refused_alike_on_every_path() {
    let specs = |layers| {
        [(Lstm::new(8).num_layers(layers).into(), true), (Gru::new(8).num_layers(layers).into(), false)].map(
            |(mut spec, has_c): (RecurrentSpec, bool)| {
                spec.bias = Bias::Double;
                (spec, has_c)
            },
        )
    };
    for layers in [1, 2] {
        for (spec, has_c) in specs(layers) {
            let mut said = std::collections::BTreeSet::new();
            for (device, strategy) in paths() {
                if strategy == Strategy::Grid {
                    continue;
                }
                let layer = layer_of(&spec, &device);
                let x = f32s(&device, &[2, 3, 4]);
                let run = |h: &Tensor, c: Option<&Tensor>| {
                    let state = State { h: h.clone(), c: c.cloned() };
                    let args = CallArgs { state: Some(&state), strategy, ..CallArgs::default() };
                    layer.forward_with(&x, &args).map(|_| ()).map_err(|e| e.to_string())
                };
                let good = f32s(&device, &[layers, 2, 8]);
                run(&good, has_c.then_some(&good)).unwrap();
                let wide = Tensor::zeros(&[layers, 2, 8], DType::U32, &device).unwrap();
                let e = run(&wide, None).unwrap_err();
                assert!(e.contains("h0") && e.contains("u32"), "{device} {strategy:?}: {e}");
                said.insert(e);
                if device.gpu().is_none_or(recurve::Gpu::has_f16) {
                    let half = good.to_dtype(DType::F16).unwrap();
                    let e = run(&half, None).unwrap_err();
                    assert!(e.contains("h0") && e.contains("f32") && e.contains("f16"), "{device} {strategy:?}: {e}");
                    said.insert(e);
                    if has_c {
                        said.insert(run(&good, Some(&half)).unwrap_err());
                    }
                }
                if !has_c {
                    let e = run(&good, Some(&good)).unwrap_err();
                    assert!(e.contains("c0") && e.contains("belongs to an LSTM"), "{device} {strategy:?}: {e}");
                    said.insert(e);
                }
                still_works(&device);
            }
            assert!(said.len() <= 3, "other words on other paths: {said:?}");
        }
    }
}

/// A batch with more rows than the device allows workgroups takes several dispatches and gives the right result.
#[test]
fn more_sequences_than_workgroups() {
    let gpu = gpu();
    let b = gpu.gpu().unwrap().max_workgroups() as usize + 3;
    if b > 1 << 20 {
        return;
    }
    let ends = |v: &[f32], w: usize| [&v[..w], &v[v.len() - w..]].concat();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for (cell, strategy) in [
        (Cell::MINGRU, Strategy::Scan),
        (Cell::MINGRU, Strategy::Step),
        (Cell::INDRNN, Strategy::Scan),
        (Cell { layer_norm: Some(1e-5), ..Cell::LSTM }, Strategy::Scan),
        (Cell { projection: Some(1), ..Cell::LSTM }, Strategy::Step),
        (Cell::RNN, Strategy::Scan),
        (Cell::LSTM, Strategy::Step),
    ] {
        let (t, i, h) = (2, 1, 2);
        let case = case(3, cell, [b, t, i, h]);
        let x = |device| Tensor::from_f32(&case.x, &[b, t, i], device).unwrap();
        let args = ForwardArgs { strategy, ..ForwardArgs::default() };
        let got = case.layer(&gpu).forward(&x(&gpu), &args).unwrap().y.unwrap().to_vec().unwrap();
        let want = case.layer(&Device::Cpu).forward(&x(&Device::Cpu), &args).unwrap().y.unwrap().to_vec().unwrap();
        compare(&ends(&got, 40), &wide(&ends(&want, 40)), Tolerance::F32)
            .unwrap_or_else(|e| panic!("{cell:?} {strategy:?}: {e}"));
        compare(&got, &wide(&want), Tolerance::F32).unwrap_or_else(|e| panic!("{cell:?} {strategy:?}: {e}"));
    }
    // As many products of small matrices, with few rows and with many.
    for m in [1, 5] {
        let (l, r) = (f32s(&gpu, &[b, m, 2]), f32s(&gpu, &[b, 3, 2]));
        let o = MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() };
        let got = l.matmul_with(&r, &o).unwrap().to_vec().unwrap();
        let cpu = |t: &Tensor| t.to_device(&Device::Cpu).unwrap();
        let want = cpu(&l).matmul_with(&cpu(&r), &o).unwrap().to_vec().unwrap();
        compare(&got, &wide(&want), Tolerance::F32).unwrap_or_else(|e| panic!("m = {m}: {e}"));
    }
    still_works(&gpu);
}

/// The error for too many workgroups names that limit.
#[test]
fn too_many_workgroups_are_called_so() {
    let e = E::Workgroups { operation: "lstm_scan", workgroups: 70_000, limit: 65_535, device: "llvmpipe".into() };
    let e = e.to_string();
    assert!(e.contains("70000 workgroups") && e.contains("65535") && !e.contains("bytes"), "{e}");
    // `scan` has one workgroup per tile of at most 8 rows.
    let gpu = gpu();
    let limit = gpu.gpu().unwrap().max_workgroups() as usize;
    if limit < 1 << 17 {
        let b = 8 * limit + 1;
        let layer = recurrent(1, Cell::RNN, [1, 1, 1, 1], &gpu);
        let x = Tensor::zeros(&[b, 1, 1], DType::F32, &gpu).unwrap();
        let e = layer.forward(&x, &ForwardArgs { strategy: Strategy::Scan, ..ForwardArgs::default() }).unwrap_err();
        assert!(matches!(e, E::Workgroups { operation: "rnn_scan", .. }), "{e}");
        still_works(&gpu);
    }
}

/// Sizes that are too large for memory, or that overflow, wherever a caller chooses a size.
#[test]
fn lack_of_memory_is_an_error() {
    for n in [1usize << 46, 1 << 60] {
        for dtype in [DType::F32, DType::F16, DType::U32] {
            let e = Tensor::zeros(&[n], dtype, &Device::Cpu).unwrap_err();
            let want = n as u64 * dtype.size() as u64;
            assert!(matches!(e, E::OutOfMemory { bytes, .. } if bytes == want), "{n} {dtype}: {e}");
        }
        let e = Tensor::zeros(&[n], DType::F32, &gpu()).unwrap_err();
        assert!(matches!(e, E::TooLarge { .. }), "{e}");
    }
    // Broadcasts and products larger than their operands. The sizes exceed any address space, because some systems
    // promise more memory than they have.
    let (long, wide) = (f32s(&Device::Cpu, &[1 << 23, 1]), f32s(&Device::Cpu, &[1, 1 << 23]));
    for e in [long.add(&wide).unwrap_err(), long.matmul(&wide).unwrap_err()] {
        assert!(matches!(e, E::OutOfMemory { bytes, .. } if bytes == 4 << 46), "{e}");
    }
    for e in [
        long.to_device(&gpu()).unwrap().add(&wide.to_device(&gpu()).unwrap()).unwrap_err(),
        long.to_device(&gpu()).unwrap().matmul(&wide.to_device(&gpu()).unwrap()).unwrap_err(),
    ] {
        assert!(matches!(e, E::TooLarge { .. }), "{e}");
    }
    // Layers, from their descriptions.
    for device in devices() {
        for units in [1usize << 44, 1 << 46, usize::MAX / 3, usize::MAX] {
            for network in [
                Sequential::new().add(Lstm::new(units)),
                Sequential::new().add(Gru::new(units).num_layers(2)),
                Sequential::new().add(Dense::new(units)),
            ] {
                assert!(network.build(&[None, Some(3), Some(2)], &device).is_err(), "{units}");
            }
            let network = Sequential::new().add(Embedding::new(units, 1 << 10));
            assert!(network.build(&[None, None], &device).is_err(), "{units}");
        }
        // Sizes whose product is zero when it overflows.
        let nothing = DirectionWeights::default();
        let none = [(Direction::Forward, &nothing)];
        for (i, h) in [(1usize << 62, 1), (1, 1 << 62), (1 << 32, 1 << 32), (usize::MAX, usize::MAX)] {
            for cell in [Cell::LSTM, Cell::RNN, Cell::INDRNN] {
                let e = Recurrent::new(&RecurrentConfig::new(cell, i, h, &none), &device).unwrap_err();
                assert!(matches!(e, E::Argument { .. }), "{e}");
            }
        }
        still_works(&device);
    }
}

/// The same tensor in several arguments: kernels never write to a tensor that a caller has.
#[test]
fn operands_may_be_the_same_tensor() {
    for (device, strategy) in paths() {
        let x = f32s(&device, &[3, 3]);
        let before = x.to_vec().unwrap();
        let copy = Tensor::from_f32(&before, &[3, 3], &device).unwrap();
        assert_eq!(x.mul(&x).unwrap().to_vec().unwrap(), x.mul(&copy).unwrap().to_vec().unwrap());
        assert_eq!(x.matmul(&x).unwrap().to_vec().unwrap(), x.matmul(&copy).unwrap().to_vec().unwrap());
        let o = MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() };
        assert_eq!(
            x.matmul_with(&x, &o).unwrap().to_vec().unwrap(),
            x.matmul_with(&copy, &o).unwrap().to_vec().unwrap()
        );
        assert_eq!(concat(&[&x, &x], 0).unwrap().to_vec().unwrap(), [&before[..], &before].concat());
        let rows = f32s(&device, &[2, 2]);
        assert_eq!(
            rows.layer_norm(&rows, 1e-3).unwrap().to_vec().unwrap(),
            rows.layer_norm(&Tensor::from_f32(&rows.to_vec().unwrap(), &[2, 2], &device).unwrap(), 1e-3)
                .unwrap()
                .to_vec()
                .unwrap()
        );
        // x [1, 1, 4] is also h0 and c0; its first element is read as ids.
        let x = f32s(&device, &[1, 1, 4]);
        let layer = recurrent(5, Cell::LSTM, [1, 1, 4, 4], &device);
        let other = Tensor::from_f32(&x.to_vec().unwrap(), &[1, 1, 4], &device).unwrap();
        let run = |h0: &Tensor, c0: &Tensor| {
            let args = ForwardArgs { h0: Some(h0), c0: Some(c0), strategy, ..ForwardArgs::default() };
            let out = layer.forward(&x, &args).unwrap();
            [out.y.unwrap().to_vec().unwrap(), out.h.to_vec().unwrap(), out.c.unwrap().to_vec().unwrap()]
        };
        assert_eq!(run(&x, &x), run(&other, &other.clone()), "{device} {strategy:?}");
        assert_eq!(x.to_vec().unwrap(), other.to_vec().unwrap());
        let ids = Tensor::from_u32(&[1, 0, 2], &[3], &device).unwrap();
        let table = f32s(&device, &[3, 2]);
        assert_eq!(table.gather(&ids).unwrap().gather(&ids).unwrap().to_vec().unwrap(), table.to_vec().unwrap());
        still_works(&device);
    }
}

/// Opening an adapter twice gives two devices, whose tensors cannot be mixed.
#[test]
fn every_operand_is_held_against_the_device() {
    let [here, there] = [gpu(), own_gpu()];
    assert_ne!(here, there);
    for (a, b) in [(&here, &there), (&here, &Device::Cpu), (&Device::Cpu, &here)] {
        let (x, y) = (f32s(a, &[2, 2]), f32s(b, &[2, 2]));
        let ids = Tensor::from_u32(&[0, 1], &[2], b).unwrap();
        let bias = f32s(b, &[2]);
        for (what, e) in [
            ("add", x.add(&y).unwrap_err()),
            ("sub", x.sub(&y).unwrap_err()),
            ("mul", x.mul(&y).unwrap_err()),
            ("div", x.div(&y).unwrap_err()),
            ("matmul", x.matmul(&y).unwrap_err()),
            ("bias", x.matmul_with(&x, &MatmulOptions { bias: Some(&bias), ..Default::default() }).unwrap_err()),
            ("gather", x.gather(&ids).unwrap_err()),
            ("layer_norm", x.layer_norm(&y, 1e-5).unwrap_err()),
            ("concat", concat(&[&x, &y], 0).unwrap_err()),
        ] {
            assert!(matches!(e, E::Device { .. }), "{what}: {e}");
            assert_eq!(e.to_string().contains("opened a second time"), a.gpu().is_some() && b.gpu().is_some(), "{e}");
        }
        let layer = recurrent(1, Cell::LSTM, [1, 2, 2, 2], a);
        let x = f32s(a, &[1, 2, 2]);
        let (foreign, state) = (f32s(b, &[1, 2, 2]), f32s(b, &[1, 1, 2]));
        let lengths = Tensor::from_u32(&[1], &[1], b).unwrap();
        let mask = Tensor::from_u32(&[1, 1], &[1, 2], b).unwrap();
        let none = ForwardArgs::default();
        for (what, e) in [
            ("x", layer.forward(&foreign, &none).unwrap_err()),
            ("h0", layer.forward(&x, &ForwardArgs { h0: Some(&state), ..none }).unwrap_err()),
            ("c0", layer.forward(&x, &ForwardArgs { c0: Some(&state), ..none }).unwrap_err()),
            ("lengths", layer.forward(&x, &ForwardArgs { lengths: Some(&lengths), ..none }).unwrap_err()),
            ("mask", layer.forward(&x, &ForwardArgs { mask: Some(&mask), ..none }).unwrap_err()),
            ("embeddings", layer.token_table(&f32s(b, &[3, 2])).unwrap_err()),
            ("ids", {
                let table = layer.token_table(&f32s(a, &[3, 2])).unwrap();
                layer.forward_tokens(&Tensor::from_u32(&[0], &[1, 1], b).unwrap(), &table, &none).unwrap_err()
            }),
        ] {
            assert!(matches!(e, E::Device { argument, .. } if argument == what), "{what}: {e}");
        }
        still_works(a);
        still_works(b);
    }
}

/// Every operation refuses element types for which it is not defined.
#[test]
fn every_operand_is_held_against_its_type() {
    for device in devices() {
        let x = f32s(&device, &[2, 2]);
        let ids = Tensor::from_u32(&[0, 1, 1, 0], &[2, 2], &device).unwrap();
        let mut errors = vec![
            x.add(&ids).unwrap_err(),
            ids.add(&ids).unwrap_err(),
            ids.matmul(&x).unwrap_err(),
            x.matmul(&ids).unwrap_err(),
            x.matmul_with(&x, &MatmulOptions { bias: Some(&ids), ..Default::default() }).unwrap_err(),
            ids.gather(&ids).unwrap_err(),
            x.gather(&x).unwrap_err(),
            x.layer_norm(&ids, 1e-5).unwrap_err(),
            ids.layer_norm(&x, 1e-5).unwrap_err(),
            ids.softmax().unwrap_err(),
            ids.argmax(0).unwrap_err(),
            ids.reduce(Reduction::Sum, 0).unwrap_err(),
            ids.activation(Activation::Tanh).unwrap_err(),
            ids.to_dtype(DType::F32).unwrap_err(),
            ids.sample(&SampleOptions {
                temperature: 1.0,
                top_k: None,
                seed: 0,
                position: 0,
                ..SampleOptions::default()
            })
            .unwrap_err(),
            ids.to_vec().unwrap_err(),
            x.to_vec_u32().unwrap_err(),
            concat(&[&x, &ids], 0).unwrap_err(),
        ];
        if device.gpu().is_none_or(recurve::Gpu::has_f16) {
            let half = x.to_dtype(DType::F16).unwrap();
            errors.extend([
                x.add(&half).unwrap_err(),
                half.layer_norm(&x, 1e-5).unwrap_err(),
                half.gather(&half).unwrap_err(),
                half.sample(&SampleOptions {
                    temperature: 1.0,
                    top_k: None,
                    seed: 0,
                    position: 0,
                    ..SampleOptions::default()
                })
                .unwrap_err(),
                concat(&[&x, &half], 0).unwrap_err(),
                x.matmul_with(&x, &MatmulOptions { bias: Some(&half), ..Default::default() }).unwrap_err(),
            ]);
            let layer = recurrent(1, Cell::LSTM, [2, 1, 2, 2], &device);
            let x = half.reshape(&[2, 1, 2]).unwrap();
            errors.push(layer.forward(&x, &ForwardArgs::default()).unwrap_err());
            errors.push(layer.token_table(&half).unwrap_err());
        }
        for e in errors {
            assert!(matches!(e, E::DType { .. }), "{device}: {e}");
        }
        still_works(&device);
    }
}

/// The projection of a chunk may have any memory limit, even 0.
#[test]
fn any_budget_gives_the_same_numbers() {
    for cell in [Cell::LSTM, Cell::MINLSTM, Cell { layer_norm: Some(1e-5), ..Cell::GRU }] {
        let case = case(4, cell, [2, 5, 3, 6]);
        let want = case.reference();
        for (device, strategy) in paths() {
            if strategy == Strategy::Grid && (cell.kind == CellKind::MinLstm || cell.layer_norm.is_some()) {
                continue;
            }
            for budget in [0, 1, 200, usize::MAX] {
                case.check(&want, &device, strategy, budget, Tolerance::F32);
            }
        }
    }
}

/// Weights that are all zero work like others.
#[test]
fn zero_weights_are_weights() {
    for cell in [Cell::INDRNN, Cell::LSTM, Cell::GRU, Cell::MINGRU, Cell { layer_norm: Some(1e-5), ..Cell::GRU }] {
        let mut case = Case::random(6, cell, &FORWARD, [2, 3, 4, 700]);
        let w = &mut case.directions[0].1;
        for v in [&mut w.w_hh, &mut w.b_ih, &mut w.b_hh] {
            v.fill(0.0);
        }
        let want = case.reference();
        for (device, strategy) in paths() {
            if strategy == Strategy::Scan && case.layer(&device).strategy(2, 3) == Strategy::Step {
                continue;
            }
            case.check(&want, &device, strategy, 1 << 20, Tolerance::F32);
        }
    }
}

/// Reordering gates keeps surplus elements, so that a wrong number of weights is noticed.
#[test]
fn gate_orders_keep_what_is_left_over() {
    let rows: Vec<u32> = (0..9).collect();
    assert_eq!(GateOrder::Onnx.to_native(Cell::LSTM.kind, &rows), [0, 1, 4, 5, 6, 7, 2, 3, 8]);
    assert_eq!(GateOrder::PyTorch.to_native(Cell::LSTM.kind, &rows[..3]), [0, 1, 2]);
    assert_eq!(GateOrder::Onnx.from_native(Cell::LSTM.kind, &rows), [0, 1, 6, 7, 2, 3, 4, 5, 8]);
}

/// Weights stored as f16 and int8 are checked too.
#[test]
fn stored_weights_are_checked_like_others() {
    for device in devices() {
        let short = DirectionWeights { w_ih: vec![0.1; 8], w_hh: vec![0.1; 3], ..DirectionWeights::default() };
        let pairs = [(Direction::Forward, &short)];
        for weights in [WeightStorage::F32, WeightStorage::F16, WeightStorage::Int8] {
            let config = RecurrentConfig { weights, ..RecurrentConfig::new(Cell::RNN, 4, 2, &pairs) };
            let e = Recurrent::new(&config, &device).unwrap_err();
            assert!(matches!(e, E::Argument { argument: "w_hh", .. }), "{e}");
        }
        still_works(&device);
    }
}
