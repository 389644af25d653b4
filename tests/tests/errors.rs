//! Bad input gives a typed error that names what is wrong, and the device stays usable.

use recurve::{
    Cell, DType, Device, Direction, DirectionWeights, ForwardArgs, MatmulOptions, Recurrent, RecurrentConfig, Strategy,
    Tensor, TensorError as E, WeightStorage, Zoneout, concat,
};
use recurve_tests::{Case, devices, gpu, paths};

/// Checks that the device still computes correctly.
fn still_works(device: &Device) {
    let x = Tensor::from_f32(&[1.0, 2.0], &[2], device).unwrap();
    assert_eq!(x.add(&x).unwrap().to_vec().unwrap(), [2.0, 4.0], "{device}");
}

fn case() -> Case {
    Case::random(1, Cell::LSTM, &[Direction::Forward], [2, 3, 4, 5])
}

#[test]
fn forward_names_operation_argument_expected_and_given() {
    for device in devices() {
        let layer = case().layer(&device);
        let x = Tensor::from_f32(&case().x, &[2, 3, 4], &device).unwrap();
        let run = |x: &Tensor, args: ForwardArgs<'_>| layer.forward(x, &args).unwrap_err();
        let none = ForwardArgs::default();

        let e = run(&x.reshape(&[6, 4]).unwrap(), none);
        assert!(matches!(e, E::Shape { argument: "x", .. }), "{e}");
        assert!(e.to_string().contains("[batch, timesteps, features]") && e.to_string().contains("[6, 4]"), "{e}");
        let e = run(&x.reshape(&[2, 4, 3]).unwrap(), none);
        assert!(e.to_string().contains("with 4 features"), "{e}");
        let ids = Tensor::from_u32(&[0; 24], &[2, 3, 4], &device).unwrap();
        assert!(matches!(run(&ids, none), E::DType { argument: "x", .. }));

        let wrong = Tensor::zeros(&[1, 2, 6], DType::F32, &device).unwrap();
        let e = run(&x, ForwardArgs { h0: Some(&wrong), ..none });
        assert!(e.to_string().contains("[1, 2, 5]") && e.to_string().contains("[1, 2, 6]"), "{e}");
        assert!(matches!(run(&x, ForwardArgs { c0: Some(&wrong), ..none }), E::Shape { argument: "c0", .. }));

        let lengths = |l: &[u32]| Tensor::from_u32(l, &[l.len()], &device).unwrap();
        assert!(matches!(
            run(&x, ForwardArgs { lengths: Some(&lengths(&[1])), ..none }),
            E::Shape { argument: "lengths", .. }
        ));
        let e = run(&x, ForwardArgs { lengths: Some(&lengths(&[1, 4])), ..none });
        assert!(e.to_string().contains("only 3 timesteps"), "{e}");

        let gru = Case::random(1, Cell::GRU, &[Direction::Forward], [2, 3, 4, 5]).layer(&device);
        let c0 = Tensor::zeros(&[1, 2, 5], DType::F32, &device).unwrap();
        let e = gru.forward(&x, &ForwardArgs { c0: Some(&c0), ..none }).unwrap_err();
        assert!(e.to_string().contains("belongs to an LSTM"), "{e}");
        still_works(&device);
    }
}

#[test]
fn empty_dimensions_are_refused_where_tensors_are_made() {
    for device in devices() {
        for dims in [&[0, 3, 4][..], &[2, 0, 4], &[2, 3, 0]] {
            let e = Tensor::from_f32(&[], dims, &device).unwrap_err();
            assert!(e.to_string().contains("at least 1"), "{e}");
        }
        let e = Tensor::from_f32(&[1.0; 5], &[2, 3], &device).unwrap_err();
        assert!(e.to_string().contains("6 elements") && e.to_string().contains('5'), "{e}");
        assert!(Tensor::from_f32(&[1.0], &[1; 7], &device).is_err());
        assert!(Tensor::zeros(&[usize::MAX, 8], DType::F32, &device).is_err());
        still_works(&device);
    }
}

#[test]
fn one_timestep_and_one_sequence_work() {
    let case = Case::random(2, Cell::LSTM, &[Direction::Forward, Direction::Reverse], [1, 1, 1, 1]);
    let want = case.reference();
    for (device, strategy) in paths() {
        case.check(&want, &device, strategy, 1 << 20, recurve::testing::Tolerance::F32);
    }
}

#[test]
fn layers_refuse_what_contradicts_itself() {
    for device in devices() {
        let w = DirectionWeights { w_ih: vec![0.0; 4], w_hh: vec![0.0; 4], ..DirectionWeights::default() };
        let make = |cell: Cell, i: usize, h: usize, w: &DirectionWeights<f32>| {
            let directions = [(Direction::Forward, w)];
            let config = RecurrentConfig::new(cell, i, h, &directions);
            Recurrent::new(&config, &device).unwrap_err().to_string()
        };
        assert!(make(Cell::RNN, 0, 2, &w).contains("at least 1"));
        assert!(make(Cell::RNN, 3, 2, &w).contains("w_ih"));
        assert!(make(Cell::LSTM, 2, 2, &w).contains("w_ih"));
        assert!(make(Cell { clip: Some(f32::NAN), ..Cell::RNN }, 2, 2, &w).contains("clip"));
        let peep = DirectionWeights { peepholes: vec![0.0; 6], ..w.clone() };
        assert!(make(Cell::RNN, 2, 2, &peep).contains("belong to an LSTM"));
        let odd = recurve::Activation::Affine { alpha: f32::INFINITY, beta: 0.0 };
        assert!(make(Cell { candidate: odd, ..Cell::RNN }, 2, 2, &w).contains("finite"));
        let config: RecurrentConfig = RecurrentConfig::new(Cell::RNN, 2, 2, &[]);
        assert!(Recurrent::new(&config, &device).is_err());
        // Every option names the cells that have it.
        let zoneout = Some(Zoneout { h: 0.1, c: 0.1 });
        for (cell, word) in [
            (Cell { projection: Some(1), ..Cell::GRU }, "projection"),
            (Cell { projection: Some(2), ..Cell::LSTM }, "projection"),
            (Cell { layer_norm: Some(1e-5), ..Cell::RNN }, "layer_norm"),
            (Cell { layer_norm: Some(1e-5), ..Cell::GRU_RESET_BEFORE }, "layer_norm"),
            (Cell { layer_norm: Some(0.0), ..Cell::LSTM }, "epsilon"),
            (Cell { zoneout, ..Cell::MINGRU }, "zoneout"),
            (Cell { zoneout, ..Cell::GRU }, "zoneout"),
            (Cell { zoneout: Some(Zoneout { h: 1.0, c: 0.0 }), ..Cell::RNN }, "zoneout"),
        ] {
            let e = make(cell, 2, 2, &w);
            assert!(e.contains(word), "{cell:?}: {e}");
        }
        // Every weight must have its size.
        let stray = |change: fn(&mut DirectionWeights<f32>)| {
            let mut w = w.clone();
            change(&mut w);
            make(Cell::RNN, 2, 2, &w)
        };
        assert!(stray(|w| w.w_hr = vec![0.0; 4]).contains("w_hr"));
        assert!(stray(|w| w.norm_ih = vec![0.0; 4]).contains("norm_ih"));
        assert!(stray(|w| w.norm_hh = vec![0.0; 4]).contains("norm_hh"));
        assert!(stray(|w| w.norm_c = vec![0.0; 4]).contains("norm_c"));
        assert!(
            make(Cell::INDRNN, 2, 2, &DirectionWeights { w_ih: vec![0.0; 4], w_hh: vec![0.0; 4], ..w.clone() })
                .contains("[H]")
        );
        // f16 has no finite number above 65504.
        let large = DirectionWeights { w_ih: vec![1e6; 4], ..w.clone() };
        let directions = [(Direction::Forward, &large)];
        let config =
            RecurrentConfig { weights: WeightStorage::F16, ..RecurrentConfig::new(Cell::RNN, 2, 2, &directions) };
        assert!(Recurrent::new(&config, &device).unwrap_err().to_string().contains("65504"));
        // int8 cannot represent infinity, and GPUs do not support int8.
        let infinite = DirectionWeights { w_ih: vec![f32::INFINITY; 4], ..w.clone() };
        let directions = [(Direction::Forward, &infinite)];
        let config =
            RecurrentConfig { weights: WeightStorage::Int8, ..RecurrentConfig::new(Cell::RNN, 2, 2, &directions) };
        assert!(Recurrent::new(&config, &device).unwrap_err().to_string().contains("finite"));
        let directions = [(Direction::Forward, &w)];
        let config =
            RecurrentConfig { weights: WeightStorage::Int8, ..RecurrentConfig::new(Cell::RNN, 2, 2, &directions) };
        match Recurrent::new(&config, &device) {
            Ok(_) => assert_eq!(device, Device::Cpu),
            Err(e) => assert!(device != Device::Cpu && e.to_string().contains("int8"), "{e}"),
        }
    }
}

#[test]
fn mixed_devices_are_an_error_never_a_copy() {
    let [cpu, gpu] = devices();
    let (a, b) =
        (Tensor::from_f32(&[1.0; 4], &[2, 2], &cpu).unwrap(), Tensor::from_f32(&[1.0; 4], &[2, 2], &gpu).unwrap());
    for e in [
        a.add(&b).unwrap_err(),
        b.matmul(&a).unwrap_err(),
        concat(&[&a, &b], 0).unwrap_err(),
        a.matmul_with(
            &a,
            &MatmulOptions {
                bias: Some(&b.slice(0, 0..1).unwrap().reshape(&[2]).unwrap()),
                ..MatmulOptions::default()
            },
        )
        .unwrap_err(),
        case()
            .layer(&gpu)
            .forward(&Tensor::from_f32(&case().x, &[2, 3, 4], &cpu).unwrap(), &ForwardArgs::default())
            .unwrap_err(),
    ] {
        assert!(matches!(e, E::Device { .. }), "{e}");
        assert!(e.to_string().contains("to_device"), "{e}");
    }
    still_works(&gpu);
}

#[test]
fn operations_refuse_wrong_shapes_axes_and_types() {
    for device in devices() {
        let a = Tensor::from_f32(&[1.0; 6], &[2, 3], &device).unwrap();
        let ids = Tensor::from_u32(&[1; 6], &[2, 3], &device).unwrap();
        assert!(matches!(a.matmul(&a), Err(E::Shape { operation: "matmul", argument: "rhs", .. })));
        assert!(matches!(a.reshape(&[4]), Err(E::Shape { .. })));
        assert!(matches!(a.reduce(recurve::Reduction::Sum, 2), Err(E::Argument { argument: "axis", .. })));
        assert!(matches!(a.slice(1, 2..4), Err(E::Argument { argument: "range", .. })));
        assert!(matches!(a.slice(1, 1..1), Err(E::Argument { .. })));
        assert!(matches!(a.transpose(&[0, 0]), Err(E::Argument { argument: "axes", .. })));
        assert!(matches!(a.add(&ids), Err(E::DType { .. })));
        assert!(matches!(ids.softmax(), Err(E::DType { .. })));
        assert!(matches!(ids.to_vec(), Err(E::DType { .. })));
        assert!(matches!(a.to_vec_u32(), Err(E::DType { .. })));
        assert!(matches!(a.gather(&a), Err(E::DType { .. })));
        assert!(matches!(concat(&[], 0), Err(E::Argument { .. })));
        still_works(&device);
    }
}

#[test]
fn a_buffer_larger_than_the_device_allows() {
    let gpu = gpu();
    let most = gpu.gpu().unwrap().max_buffer_bytes() as usize / 4;
    let e = Tensor::zeros(&[most + 1], DType::F32, &gpu).unwrap_err();
    assert!(matches!(e, E::TooLarge { .. }), "{e}");
    still_works(&gpu);
}

#[test]
fn a_projection_larger_than_the_budget_is_done_in_chunks() {
    // With a limit of one byte, a chunk is one timestep.
    let case = case();
    let want = case.reference();
    for (device, strategy) in paths() {
        case.check(&want, &device, strategy, 1, recurve::testing::Tolerance::F32);
    }
}

#[test]
fn a_strategy_that_cannot_run_says_so() {
    let gpu = gpu();
    let h = 5000;
    let w = DirectionWeights { w_ih: vec![0.0; h], w_hh: vec![0.0; h * h], ..DirectionWeights::default() };
    let directions = [(Direction::Forward, &w)];
    let config = RecurrentConfig::new(Cell::RNN, 1, h, &directions);
    let layer = Recurrent::new(&config, &gpu).unwrap();
    let x = Tensor::zeros(&[1, 2, 1], DType::F32, &gpu).unwrap();
    let e = layer.forward(&x, &ForwardArgs { strategy: Strategy::Scan, ..ForwardArgs::default() }).unwrap_err();
    assert!(e.to_string().contains("scan"), "{e}");
    assert_eq!(layer.strategy(1, 2), Strategy::Step);
    assert!(layer.forward(&x, &ForwardArgs::default()).unwrap().h.to_vec().unwrap().iter().all(|&v| v == 0.0));
}

#[test]
fn no_such_adapter() {
    let e = Device::by_name("gpu:no such card").unwrap_err();
    assert!(matches!(e, E::NoDevice { .. }), "{e}");
    assert!(e.to_string().contains(&gpu().name()), "it lists what there is: {e}");
    assert!(matches!(Device::by_name("cuda"), Err(E::Argument { .. })));
}

/// A GPU that tells its place on the PCI bus is opened by it, and a place without one is an error that lists what there is.
#[test]
fn adapters_by_their_place_on_the_bus() {
    let e = Device::by_name("pci:FFFF:ff:1f.7").unwrap_err();
    assert!(matches!(&e, E::NoDevice { wanted, .. } if wanted == "pci:ffff:ff:1f.7"), "{e:?}");
    assert!(e.to_string().contains(&gpu().name()), "{e}");
    assert!(matches!(Device::by_name("pci:65"), Err(E::Argument { argument: "PCI address", .. })));
    for adapter in Device::adapters() {
        // A software adapter is on no bus.
        assert!(adapter.kind != recurve::AdapterKind::Software || adapter.pci.is_none(), "{adapter:?}");
        if let Some(place) = adapter.pci {
            let opened = Device::by_name(&format!("pci:{place}")).unwrap();
            assert_eq!(opened.gpu().unwrap().summary().pci, Some(place));
        }
    }
}

#[test]
fn a_software_rasteriser_is_never_picked_by_itself() {
    let best = Device::best().unwrap();
    if let Some(g) = best.gpu() {
        assert_ne!(g.summary().kind, recurve::AdapterKind::Software);
    }
    if Device::adapters().iter().all(|a| a.kind == recurve::AdapterKind::Software) {
        assert_eq!(best, Device::Cpu);
        let e = Device::by_name("gpu").unwrap_err().to_string();
        assert!(e.contains("only used when its name is given"), "{e}");
    }
}

#[test]
fn a_lost_device_is_an_error_and_a_new_one_works() {
    let open = || Device::by_name(&format!("{}:{}", gpu().backend(), gpu().name())).unwrap();
    let lost = open();
    let layer = case().layer(&lost);
    let x = Tensor::from_f32(&case().x, &[2, 3, 4], &lost).unwrap();
    let y = layer.forward(&x, &ForwardArgs::default()).unwrap().y.unwrap();
    lost.gpu().unwrap().destroy();
    assert!(matches!(y.to_vec(), Err(E::DeviceLost { .. })));
    assert!(y.to_string().starts_with("<the device was lost"), "{y}");
    assert!(matches!(layer.forward(&x, &ForwardArgs::default()), Err(E::DeviceLost { .. })));
    assert!(matches!(Tensor::from_f32(&[1.0], &[1], &lost), Err(E::DeviceLost { .. })));
    assert!(matches!(lost.synchronize(), Err(E::DeviceLost { .. })));
    still_works(&open());
    still_works(&gpu());
}

#[test]
fn masks_are_checked() {
    for device in devices() {
        let w = DirectionWeights { w_ih: vec![0.0; 4], w_hh: vec![0.0; 4], ..DirectionWeights::default() };
        let directions = [(Direction::Forward, &w)];
        let layer = Recurrent::new(&RecurrentConfig::new(Cell::RNN, 2, 2, &directions), &device).unwrap();
        let x = Tensor::zeros(&[3, 4, 2], DType::F32, &device).unwrap();
        let call = |mask: &Tensor, lengths: Option<&Tensor>| {
            layer
                .forward(&x, &ForwardArgs { mask: Some(mask), lengths, ..ForwardArgs::default() })
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        let right = Tensor::zeros(&[3, 4], DType::U32, &device).unwrap();
        assert!(call(&right, None).is_ok());
        let wrong = Tensor::zeros(&[4, 3], DType::U32, &device).unwrap();
        assert!(call(&wrong, None).unwrap_err().contains("[batch, timesteps] = [3, 4]"));
        let float = Tensor::zeros(&[3, 4], DType::F32, &device).unwrap();
        assert!(call(&float, None).unwrap_err().contains("u32"));
        let lengths = Tensor::zeros(&[3], DType::U32, &device).unwrap();
        assert!(call(&right, Some(&lengths)).unwrap_err().contains("lengths"));
        let other =
            Tensor::zeros(&[3, 4], DType::U32, &if device == Device::Cpu { gpu() } else { Device::Cpu }).unwrap();
        assert!(call(&other, None).unwrap_err().contains("mask"));
    }
}
