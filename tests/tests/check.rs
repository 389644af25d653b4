//! The cross-check that users call.

use recurve::testing::{CheckError, Mismatch, Tolerance, cross_check, reference_outputs};
use recurve::{
    Activation, Cell, Dense, Device, Direction, Embedding, Gru, HostArray, HostData, IndRnn, Initializer, Lstm, Model,
    Sequential, Strategy, Tensor, TimeDistributed, WeightStorage,
};
use recurve_tests::skips::has_f16;
use recurve_tests::{Case, Random, devices, paths};

fn floats(shape: &[usize], seed: u64) -> HostArray {
    HostArray { shape: shape.to_vec(), data: HostData::Float(Random(seed).floats(shape.iter().product(), 1.0)) }
}

/// u is a vector, and only matrices are rounded.
#[test]
fn the_u_of_an_indrnn_stays_f32() {
    let layer = IndRnn::new(20)
        .return_sequences(true)
        .recurrent_initializer(Initializer::Uniform { limit: 1.0 })
        .weight_storage(WeightStorage::F16);
    let network = Sequential::new().add(layer).seed(3).build(&[None, None, Some(6)], &Device::Cpu).unwrap();
    let model = Model::new("indrnn", network);
    let halves: Vec<Device> = devices().into_iter().filter(has_f16).collect();
    let report = cross_check(&model, &[("input", floats(&[3, 40, 6], 1))], &halves, Tolerance::F32);
    report.unwrap_or_else(|e| panic!("{e}"));

    // The kernels too, in every way of running. A rounded u would cause an error of 5e-4 per step.
    let mut case = Case::random(5, Cell::INDRNN, &[Direction::Forward], [3, 40, 6, 20]).with_f16_weights();
    case.directions[0].1.w_hh = (0..20).map(|n| 0.9 + n as f32 * 1e-5).collect();
    let want = case.reference();
    for (device, strategy) in paths() {
        case.check(&want, &device, strategy, 64 << 20, Tolerance::F32);
    }
    // A vector may contain values that f16 cannot represent.
    case.directions[0].1.w_hh[0] = 1e5;
    case.layer(&Device::Cpu);
}

/// Integers are converted where floats are needed, as in `Model::run`; the reverse is an error.
#[test]
fn integer_data_is_what_it_is_to_a_run() {
    let network = Sequential::new().add(Gru::new(4)).add(Dense::new(2)).build(&[None, None, Some(3)], &Device::Cpu);
    let model = Model::new("floats", network.unwrap());
    let whole = [1, -2, 3, 0, 1, 1];
    let ints = HostArray { shape: vec![1, 2, 3], data: HostData::Int(whole.to_vec()) };
    let same = HostArray { shape: vec![1, 2, 3], data: HostData::Float(whole.map(|v| v as f32).to_vec()) };
    let outputs = |x: &HostArray| reference_outputs(&model, &[("input", x.clone())]).unwrap();
    assert_eq!(outputs(&ints), outputs(&same));
    cross_check(&model, &[("input", ints)], &devices(), Tolerance::F32).unwrap();

    let network = Sequential::new().add(Embedding::new(5, 3)).add(Gru::new(4)).build(&[None, None], &Device::Cpu);
    let model = Model::new("ids", network.unwrap());
    let e = cross_check(&model, &[("input", floats(&[1, 2], 1))], &devices(), Tolerance::F32).unwrap_err();
    assert!(matches!(e, CheckError::Run(_)), "{e}");
    let negative = HostArray { shape: vec![1, 2], data: HostData::Int(vec![-1, 2]) };
    let e = cross_check(&model, &[("input", negative)], &devices(), Tolerance::F32).unwrap_err();
    assert!(matches!(e, CheckError::Run(_)), "{e}");
    let beyond = HostArray { shape: vec![1, 2], data: HostData::Int(vec![1, 5]) };
    let e = cross_check(&model, &[("input", beyond)], &devices(), Tolerance::F32).unwrap_err();
    assert!(matches!(e, CheckError::Run(_)), "{e}");
}

/// An embedding and the layer behind it run as a look-up in a table. The traced run, which the check compares, uses the
/// table too: its bits are those of an ordinary run.
#[test]
fn a_trace_gives_the_bits_of_a_run() {
    for device in devices() {
        let network = Sequential::new()
            .add(Embedding::new(7, 5).mask_zero(true))
            .add(Lstm::new(6).return_sequences(true))
            .add(TimeDistributed::new(Dense::new(3).activation(Activation::Tanh)))
            .build(&[None, None], &device)
            .unwrap();
        let ids = Tensor::from_u32(&[1, 6, 0, 3, 2, 5, 4, 0], &[2, 4], &device).unwrap();
        for strategy in [Strategy::Auto, Strategy::Step] {
            let args = recurve::CallArgs { strategy, ..recurve::CallArgs::default() };
            let traced = network.forward_traced(&[("input", &ids)], &args).unwrap();
            assert_eq!(*traced[0].1.shape(), [2, 4, 5], "the rows of the embedding");
            let run = network.forward_all(&ids, &args).unwrap().swap_remove(0);
            assert_eq!(traced.last().unwrap().1.to_vec().unwrap(), run.to_vec().unwrap(), "{device}");
        }
    }
}

#[test]
fn a_wrong_layer_is_found_and_named() {
    let network = Sequential::new().add(Gru::new(4).return_sequences(true)).add(Dense::new(2));
    let model = Model::new("m", network.build(&[None, None, Some(3)], &Device::Cpu).unwrap());
    let e = cross_check(&model, &[("input", floats(&[2, 5, 3], 9))], &[Device::Cpu], Tolerance::new(1e-12));
    let Err(CheckError::Mismatch(report)) = e else { panic!("f32 is not that exact") };
    assert_eq!(report.devices[0].layers[0].layer, "gru");
    assert!(matches!(report.devices[0].layers[0].result, Err(Mismatch::Value { .. })));
}

/// Runs the layers before the one in question on the CPU, and that layer and later ones on the device.
#[test]
fn the_first_wrong_layer_is_run_by_itself() {
    let layers = [true, true, false].map(|all| Lstm::new(7).return_sequences(all));
    let network = layers.into_iter().fold(Sequential::new(), Sequential::add).add(Dense::new(3));
    let network = network.seed(5).build(&[None, None, Some(4)], &Device::Cpu).unwrap();
    let model = Model::new("stack", network);
    let x = floats(&[2, 9, 4], 8);
    let want = reference_outputs(&model, &[("input", x.clone())]).unwrap();
    for device in devices().into_iter().filter(|d| *d != Device::Cpu) {
        // f32 arithmetic cannot reach this tolerance.
        let wrong = cross_check(&model, &[("input", x.clone())], std::slice::from_ref(&device), Tolerance::new(1e-12));
        let Err(CheckError::Mismatch(report)) = wrong else { panic!("{wrong:?}") };
        let d = &report.devices[0];
        let first = d.layers.iter().find(|l| l.result.is_err()).expect("a wrong layer");
        let alone = d.alone.as_ref().expect("it is run by itself");
        assert_eq!((&alone.layer, &alone.shape), (&first.layer, &first.shape));
        assert!(report.to_string().contains("its inputs from the CPU"), "{report}");

        let HostData::Float(data) = &x.data else { unreachable!() };
        let x = Tensor::from_f32(data, &x.shape, &Device::Cpu).unwrap();
        let args = Default::default();
        let bits = |values: &[(String, Tensor)]| -> Vec<Vec<u32>> {
            values.iter().map(|(_, t)| t.to_vec().unwrap().into_iter().map(f32::to_bits).collect()).collect()
        };
        let cpu = model.network().forward_traced(&[("input", &x)], &args).unwrap();
        let across = model.network().forward_traced_across(2, &device, &[("input", &x)], &args).unwrap();
        assert_eq!(bits(&across[..2]), bits(&cpu[..2]));
        assert!(across[..2].iter().all(|(_, t)| t.device() == device));
        for ((_, got), want) in across.iter().zip(&want) {
            recurve::testing::compare(&got.to_vec().unwrap(), want, Tolerance::F32).unwrap();
        }
        let whole = model.network().forward_traced_across(0, &device, &[("input", &x)], &args).unwrap();
        let there = model.network().to_device(&device).unwrap();
        let gpu = there.forward_traced(&[("input", &x.to_device(&device).unwrap())], &args).unwrap();
        assert_eq!(bits(&whole), bits(&gpu));
    }
    let exact = cross_check(&model, &[("input", x)], &devices(), Tolerance::F32).unwrap();
    assert!(exact.devices.iter().all(|d| d.alone.is_none()));
}
