//! Kept states: streams, stateful layers, and resetting them.

use recurve::{
    Bidirectional, Dense, Device, Dropout, Embedding, Gru, LayerConfig, LayerError as E, Lstm, Masking, Network,
    RecurrentSpec, Replicas, Sequential, SimpleRnn, StackedRnnCells, Streams, Tensor, TimeDistributed,
};
use recurve_tests::{Random, devices};

fn build(layers: Vec<LayerConfig>, shape: &[Option<usize>], device: &Device) -> Network {
    layers.into_iter().fold(Sequential::new().seed(5), Sequential::add).build(shape, device).unwrap()
}

fn frames(count: usize, size: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut r = Random(seed);
    (0..count).map(|_| r.floats(size, 1.0)).collect()
}

/// A network with every kind of recurrent layer, stateful or not.
fn network(stateful: bool, device: &Device) -> Network {
    let cells = StackedRnnCells::new().add(SimpleRnn::new(3)).add(Lstm::new(4)).return_sequences(true);
    build(
        vec![
            Lstm::new(5).return_sequences(true).stateful(stateful).into(),
            cells.stateful(stateful).into(),
            Dropout::new(0.5).into(),
            Gru::new(3).num_layers(2).return_sequences(true).stateful(stateful).into(),
            Dense::new(2).into(),
        ],
        &[None, None, Some(3)],
        device,
    )
}

#[test]
fn streams_neither_use_nor_change_what_a_network_remembers() {
    for device in devices() {
        let (stateful, plain) = (network(true, &device), network(false, &device));
        let run = |n: &Network, x: &[f32]| {
            let x = Tensor::from_f32(x, &[1, x.len() / 3, 3], &device).unwrap();
            n.forward(&x).unwrap().to_vec().unwrap()
        };
        let [first, second] = [1, 2].map(|seed| Random(seed).floats(12, 1.0));
        // The expected result: two calls in a row with nothing in between.
        run(&stateful, &first);
        let undisturbed = run(&stateful, &second);
        assert_ne!(undisturbed, run(&plain, &second), "it remembers");
        stateful.reset_states();

        run(&stateful, &first);
        let (a, b) = (frames(4, 3, 7), frames(4, 3, 8));
        let (whole_a, whole_b) = (run(&plain, &a.concat()), run(&plain, &b.concat()));
        let (mut one, mut two) = (Streams::new(&stateful).unwrap(), Streams::new(&stateful).unwrap());
        let (id, other) = (one.join(), two.join());
        for t in 0..4 {
            let close = |got: &[f32], whole: &[f32], who: &str| {
                for (g, w) in got.iter().zip(&whole[t * 2..]) {
                    assert!((g - w).abs() <= 1e-5, "{who} at {t} on {device}: {g}, expected {w}");
                }
            };
            let y = one.step(&[(id, &a[t])]).unwrap().to_vecs().unwrap();
            close(&y[0], &whole_a, "the first");
            let y = two.step(&[(other, &b[t])]).unwrap().to_vecs().unwrap();
            close(&y[0], &whole_b, "the second");
        }
        assert_eq!(run(&stateful, &second), undisturbed, "the network remembers its own calls");
    }
}

#[test]
fn outputs_outlive_the_steps_after_them() {
    let network = network(false, &Device::Cpu);
    let mut streams = Streams::new(&network).unwrap();
    let ids: Vec<_> = (0..3).map(|_| streams.join()).collect();
    let f = frames(3, 3, 1);
    let held: Vec<_> = (0..20)
        .map(|n| {
            // Each step runs another stream, so its rows differ.
            streams.step(&[(ids[n % 3], &f[n % 3])]).unwrap()
        })
        .collect();
    for (n, out) in held.iter().enumerate() {
        assert_eq!(**out.rows, [n % 3]);
    }
}

/// Networks that cannot run single timesteps are refused when the streams are made, with the name of the layer.
#[test]
fn networks_that_no_step_can_run_are_refused() {
    let any = [None, None, Some(3)];
    let seq = |l: Gru| l.return_sequences(true);
    let refused = |layers: Vec<LayerConfig>, shape: &[Option<usize>], name: &str, what: &str| {
        let network = build(layers, shape, &Device::Cpu);
        let e = Streams::new(&network).unwrap_err();
        assert!(matches!(&e, E::Option { layer, argument, .. } if layer == name && *argument == what), "{e}");
    };
    refused(vec![Masking::new(0.0).into(), Gru::new(2).into()], &any, "masking", "mask_value");
    refused(vec![Dense::new(3).into(), Masking::new(0.0).into(), Gru::new(2).into()], &any, "masking", "mask_value");
    refused(vec![Bidirectional::new(seq(Gru::new(2))).into(), Gru::new(2).into()], &any, "bidirectional", "step");
    refused(vec![seq(Gru::new(2)).into(), Gru::new(2).go_backwards(true).into()], &any, "gru_1", "step");
    let cells = StackedRnnCells::new().add(Gru::new(2)).add(Gru::new(2)).go_backwards(true);
    refused(vec![cells.into()], &any, "rnn.cells.0", "step");
    refused(vec![Gru::new(2).into()], &[None, Some(4), Some(3)], "gru", "input_shape");
    refused(vec![Gru::new(2).into()], &[Some(2), None, Some(3)], "gru", "input_shape");
    refused(vec![Gru::new(2).time_major(true).into()], &[Some(4), None, Some(3)], "gru", "input_shape");
    let inner = TimeDistributed::new(SimpleRnn::new(2).stateful(true));
    let deep = [None, None, Some(4), Some(3)];
    refused(vec![inner.into(), Gru::new(2).into()], &deep, "time_distributed", "stateful");
    let ids = build(vec![Embedding::new(5, 3).into(), Gru::new(2).into()], &[None, None], &Device::Cpu);
    assert!(matches!(Streams::new(&ids), Err(E::Option { argument: "network", .. })));

    // Each of these networks can.
    for (layers, shape) in [
        (vec![seq(Gru::new(2)).into(), Dense::new(2).into()], &any[..]),
        (vec![Gru::new(2).time_major(true).into()], &any[..]),
        (vec![Gru::new(2).into()], &[None, Some(1), Some(3)][..]),
        (vec![TimeDistributed::new(Bidirectional::new(Gru::new(2))).into(), Gru::new(2).into()], &deep[..]),
    ] {
        let network = build(layers, shape, &Device::Cpu);
        let mut streams = Streams::new(&network).unwrap();
        let id = streams.join();
        let size = shape[2..].iter().flatten().product();
        streams.step(&[(id, &vec![0.5; size])]).unwrap();
    }
}

/// Resetting reaches every layer, also layers inside others.
#[test]
fn reset_states_reaches_every_layer() {
    let rnn = || SimpleRnn::new(3).stateful(true);
    let cells = || StackedRnnCells::new().add(Gru::new(3)).add(Lstm::new(3)).stateful(true);
    let cases: Vec<(LayerConfig, Vec<usize>)> = vec![
        (rnn().into(), vec![2, 4, 3]),
        (cells().into(), vec![2, 4, 3]),
        (TimeDistributed::new(rnn()).into(), vec![2, 2, 4, 3]),
        (TimeDistributed::new(cells()).into(), vec![2, 2, 4, 3]),
        (TimeDistributed::new(Bidirectional::new(rnn())).into(), vec![2, 2, 4, 3]),
        (TimeDistributed::new(TimeDistributed::new(rnn())).into(), vec![2, 2, 2, 4, 3]),
        (TimeDistributed::new(TimeDistributed::new(TimeDistributed::new(cells()))).into(), vec![2, 1, 2, 2, 4, 3]),
    ];
    for device in devices() {
        for (config, dims) in &cases {
            let shape: Vec<Option<usize>> = dims.iter().enumerate().map(|(n, &d)| (n > 0).then_some(d)).collect();
            let network = build(vec![config.clone()], &shape, &device);
            let x = Random(3).floats(dims.iter().product(), 1.0);
            let x = Tensor::from_f32(&x, dims, &device).unwrap();
            let run = || network.forward(&x).unwrap().to_vec().unwrap();
            let fresh = run();
            assert_ne!(run(), fresh, "{config:?} remembers");
            network.reset_states();
            assert_eq!(run(), fresh, "{config:?} on {device}");
            // A network that is stateful anywhere cannot be split into replicas.
            let e = Replicas::new(&network, std::slice::from_ref(&device)).unwrap_err();
            assert!(matches!(e, E::Option { argument: "stateful", .. }), "{e}");
        }
    }
}

/// A single layer, and a call with its own state, which leaves the kept state unchanged.
#[test]
fn a_call_can_leave_memory_alone() {
    let spec: RecurrentSpec = Lstm::new(3).stateful(true).into();
    let network = build(vec![LayerConfig::Recurrent(spec)], &[None, None, Some(2)], &Device::Cpu);
    let x = Tensor::from_f32(&Random(1).floats(12, 1.0), &[2, 3, 2], &Device::Cpu).unwrap();
    let run = |ignore_memory| {
        let args = recurve::CallArgs { ignore_memory, ..recurve::CallArgs::default() };
        network.forward_all(&x, &args).unwrap().swap_remove(0).to_vec().unwrap()
    };
    let fresh = run(true);
    assert_eq!(run(true), fresh);
    assert_eq!(run(false), fresh, "nothing was remembered");
    let second = run(false);
    assert_ne!(second, fresh);
    assert_eq!(run(true), fresh);
    network.reset_states();
    run(false);
    run(true);
    assert_eq!(run(false), second, "nothing was changed");
}
