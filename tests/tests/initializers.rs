//! Initialisers beside what Keras and PyTorch draw (`golden/make_initializers.py`).

use recurve::{Dense, Device, Fan, Initializer, Lstm, Sequential, Spread, TensorError};
use recurve_tests::fixtures;
use serde_json::{Value, json};

/// Mean, standard deviation, smallest and largest number.
fn moments(w: &[f32]) -> [f64; 4] {
    let n = w.len() as f64;
    let mean = w.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = w.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let (low, high) =
        w.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v.into()), h.max(v.into())));
    [mean, variance.sqrt(), low, high]
}

/// Whether two draws have the same distribution, as far as their moments tell: for 6000 numbers and more the deviation
/// of a mean is below 0.013 standard deviations, and that of a standard deviation below 1 %.
fn alike(got: [f64; 4], want: [f64; 4], bounded: bool) -> bool {
    let std = want[1];
    let near = |n: usize, by: f64| (got[n] - want[n]).abs() <= by * std + 1e-7;
    // A normal distribution has no ends.
    let ends = if bounded { 0.03 } else { 1.5 };
    near(0, 0.06) && near(1, 0.04) && near(2, ends) && near(3, ends)
}

fn cases() -> Vec<(Initializer, Vec<usize>, [f64; 4], bool)> {
    let text = std::fs::read_to_string(fixtures().join("initializers.json")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let case = |c: &Value| {
        let name = c["initializer"].to_string();
        let dims = c["dims"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        let want = ["mean", "std", "low", "high"].map(|n| c[n].as_f64().unwrap());
        // What Keras truncates on PyTorch is at times a little beyond its bounds.
        let bounded = !["normal", "orthogonal"].iter().any(|n| name.contains(n));
        (serde_json::from_value(c["initializer"].clone()).unwrap(), dims, want, bounded)
    };
    all.iter().map(case).collect()
}

#[test]
fn numbers_are_distributed_as_those_of_the_frameworks() {
    let cases = cases();
    assert!(cases.len() > 80, "{}", cases.len());
    for (seed, (how, dims, want, bounded)) in cases.iter().enumerate() {
        let w = how.draw(dims, seed as u64).unwrap();
        assert_eq!(w.len(), dims.iter().product::<usize>());
        let got = moments(&w);
        assert!(alike(got, *want, *bounded), "{how:?} of {dims:?}: {got:?}, not {want:?}");
        let bits = |w: &[f32]| w.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&w), bits(&how.draw(dims, seed as u64).unwrap()), "{how:?}");
        let drawn = want[1] > 0.0 && !matches!(how, Initializer::Identity { .. });
        assert_eq!(bits(&w) != bits(&how.draw(dims, seed as u64 + 1).unwrap()), drawn, "{how:?}");
    }
}

#[test]
fn wrong_readings_are_noticed() {
    let other = [
        (Initializer::GlorotUniform, Initializer::HeUniform),
        (Initializer::GlorotNormal, Initializer::xavier_normal()),
        (Initializer::HeNormal, Initializer::LecunNormal),
        (Initializer::LecunUniform, Initializer::TorchLinear),
        (Initializer::Orthogonal, Initializer::ScaledOrthogonal { gain: 2.0 }),
        (Initializer::Ones, Initializer::Zeros),
    ];
    for (right, wrong) in other {
        let own = cases().into_iter().filter(|c| c.0 == right);
        let noticed =
            own.filter(|(_, dims, want, bounded)| !alike(moments(&wrong.draw(dims, 1).unwrap()), *want, *bounded));
        assert!(noticed.count() > 0, "{wrong:?} for {right:?}");
    }
    // A normal distribution that is cut without its variance being kept.
    let how = |distribution| Initializer::VarianceScaling { scale: 1.0, mode: Fan::FanIn, distribution };
    let std = 1.0 / 300f32.sqrt();
    let kept = moments(&how(Spread::TruncatedNormal).draw(&[200, 300], 1).unwrap());
    let cut = moments(&Initializer::TruncatedNormal { mean: 0.0, std }.draw(&[200, 300], 1).unwrap());
    assert!(alike(kept, [0.0, f64::from(std), kept[2], kept[3]], true) && !alike(cut, kept, true));
}

#[test]
fn truncated_numbers_keep_to_their_bounds() {
    for (how, bound) in [
        (Initializer::TruncatedNormal { mean: 1.0, std: 0.25 }, 0.5),
        (Initializer::LecunNormal, 2.0 / 0.879_625_7 / 300f64.sqrt()),
    ] {
        let centre = if how == Initializer::LecunNormal { 0.0 } else { 1.0 };
        let w = how.draw(&[200, 300], 5).unwrap();
        let most = w.iter().map(|&v| (f64::from(v) - centre).abs()).fold(0.0, f64::max);
        assert!(most <= bound * (1.0 + 1e-6) && most > 0.98 * bound, "{how:?}: {most}, not {bound}");
    }
}

#[test]
fn orthogonal_matrices_are_orthogonal_and_identities_are_identities() {
    for (rows, columns) in [(5, 5), (4, 11), (24, 6)] {
        for gain in [1.0, 2.5, -0.5] {
            let m = Initializer::ScaledOrthogonal { gain }.draw(&[rows, columns], 3).unwrap();
            let (short, long) = (rows.min(columns), rows.max(columns));
            let at =
                |s: usize, l: usize| f64::from(if rows <= columns { m[s * columns + l] } else { m[l * columns + s] });
            for i in 0..short {
                for j in 0..short {
                    let dot: f64 = (0..long).map(|k| at(i, k) * at(j, k)).sum();
                    let want = if i == j { f64::from(gain * gain) } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{rows}×{columns} {i} {j}: {dot}");
                }
            }
        }
        let m = Initializer::Identity { gain: 2.0 }.draw(&[rows, columns], 0).unwrap();
        let want = |n: usize| if n / columns == n % columns { 2.0 } else { 0.0 };
        assert!(m.iter().enumerate().all(|(n, v)| *v == want(n)), "{rows}×{columns}: {m:?}");
    }
    let plain = Initializer::Orthogonal.draw(&[6, 4], 9).unwrap();
    let twice = Initializer::ScaledOrthogonal { gain: 2.0 }.draw(&[6, 4], 9).unwrap();
    assert!(plain.iter().zip(&twice).all(|(a, b)| 2.0 * a == *b));
}

#[test]
fn layers_use_them_and_files_name_them() {
    let all: [(Initializer, Value); 6] = [
        (Initializer::HeNormal, json!("he_normal")),
        (Initializer::TorchUniform, json!("torch_uniform")),
        (Initializer::Orthogonal, json!("orthogonal")),
        (Initializer::Constant { value: 0.5 }, json!({"constant": {"value": 0.5}})),
        (Initializer::random_normal(), json!({"random_normal": {"mean": 0.0, "std": 0.05f32}})),
        (
            Initializer::kaiming_normal(),
            json!({"variance_scaling": {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"}}),
        ),
    ];
    for (how, named) in all {
        assert_eq!(serde_json::to_value(how).unwrap(), named);
        assert_eq!(serde_json::from_value::<Initializer>(named).unwrap(), how);
    }
    let network = Sequential::new()
        .add(
            Lstm::new(8)
                .kernel_initializer(Initializer::Ones)
                .recurrent_initializer(Initializer::Identity { gain: 3.0 })
                .bias_initializer(Initializer::Constant { value: 0.25 }),
        )
        .add(Dense::new(1))
        .build(&[None, None, Some(5)], &Device::Cpu)
        .unwrap();
    let weight = |part: &str| {
        let (_, w) = network.weights().iter().find(|(n, _)| n.contains(part)).unwrap();
        w.to_vec().unwrap()
    };
    assert!(weight("weight_ih").iter().all(|v| *v == 1.0));
    assert_eq!(weight("weight_hh").iter().sum::<f32>(), 24.0);
    // The forget gate's biases are 1, as Keras's `unit_forget_bias` says.
    assert_eq!(weight("bias_ih").iter().filter(|v| **v == 0.25).count(), 24);
}

#[test]
fn bad_options_are_named() {
    use Initializer::*;
    let nan = f32::NAN;
    let bad = [
        (Constant { value: f32::INFINITY }, "value"),
        (Uniform { limit: -1.0 }, "limit"),
        (RandomUniform { low: 1.0, high: 0.5 }, "high"),
        (RandomUniform { low: -3e38, high: 3e38 }, "high"),
        (RandomUniform { low: nan, high: 0.5 }, "low"),
        (RandomNormal { mean: 0.0, std: -0.1 }, "std"),
        (TruncatedNormal { mean: nan, std: 0.1 }, "mean"),
        (VarianceScaling { scale: -1.0, mode: Fan::FanIn, distribution: Spread::Uniform }, "scale"),
        (ScaledOrthogonal { gain: nan }, "gain"),
        (Identity { gain: nan }, "gain"),
    ];
    for (how, named) in bad {
        let e = how.draw(&[3, 4], 0).unwrap_err();
        assert!(matches!(&e, TensorError::Argument { argument, .. } if *argument == named), "{e}");
    }
    for dims in [&[][..], &[3, 0]] {
        let e = HeNormal.draw(dims, 0).unwrap_err();
        assert!(matches!(&e, TensorError::Argument { argument: "dims", .. }), "{e}");
    }
    assert!(Identity { gain: 1.0 }.draw(&[3], 0).is_err() && Identity { gain: 1.0 }.draw(&[3, 3, 3], 0).is_err());
    let wrong = Lstm::new(8).kernel_initializer(RandomNormal { mean: 0.0, std: nan });
    let e = Sequential::new().add(wrong).build(&[None, None, Some(5)], &Device::Cpu).unwrap_err();
    assert!(e.to_string().contains("std"), "{e}");
}
