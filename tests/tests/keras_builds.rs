//! Networks that are built of Keras's descriptions (`golden/make_keras_builds.py`): weights in Keras's order and layout,
//! both ways, and initial weights as Keras draws them.

use recurve::testing::{Tolerance, compare};
use recurve::{Device, Error, HostArray, HostData, Model, NetworkVariable, Weights, read_array};
use recurve_tests::{devices, fixtures, wide};
use serde_json::{Value, json};
use std::sync::Arc;

fn array(name: &str) -> HostArray {
    read_array(&fixtures().join("keras_builds.npz"), name).unwrap()
}

fn floats(name: &str) -> (Vec<usize>, Vec<f32>) {
    let a = array(name);
    let HostData::Float(v) = a.data else { panic!("{name}") };
    (a.shape, v)
}

fn index() -> Value {
    let HostData::Int(v) = array("index").data else { panic!("the index is bytes") };
    let bytes: Vec<u8> = v.into_iter().map(|v| u8::try_from(v).unwrap()).collect();
    serde_json::from_slice(&bytes).unwrap()
}

fn built(about: &Value, seed: u64, device: &Device) -> Model {
    Model::from_keras_json(about["json"].as_str().unwrap(), seed, device).unwrap()
}

fn sizes(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
}

/// The model with Keras's weights.
fn with_keras_weights(name: &str, model: &Model) -> Model {
    let mut weights = Weights::clone(model.network().weights());
    for (n, variable) in model.network().variables().unwrap().iter().enumerate() {
        let (shape, data) = floats(&format!("{name}.w{n}"));
        assert_eq!(variable.shape(), shape, "{name} {variable:?}");
        variable.write(data, &mut weights).unwrap();
    }
    model.with_weights(Arc::new(weights)).unwrap()
}

/// Runs a model as Keras did. The error says what differs.
fn runs_as_keras(name: &str, about: &Value, model: &Model) -> Result<(), String> {
    let inputs = about["inputs"].as_array().unwrap().iter().enumerate();
    let inputs: Vec<(&str, HostArray)> =
        inputs.map(|(n, i)| (i.as_str().unwrap(), array(&format!("{name}.x{n}")))).collect();
    let outputs = model.run_all(inputs).map_err(|e| e.to_string())?;
    assert_eq!(outputs.len() as u64, about["outputs"].as_u64().unwrap(), "{name}");
    for (n, (_, got)) in outputs.iter().enumerate() {
        let (shape, want) = floats(&format!("{name}.y{n}"));
        assert_eq!(got.dims(), shape, "{name}");
        compare(&got.to_vec().unwrap(), &wide(&want), Tolerance::new(2e-6)).map_err(|e| format!("{name} {n}: {e}"))?;
    }
    Ok(())
}

#[test]
fn variables_and_results_are_those_of_keras() {
    let index = index();
    let models = index["models"].as_object().unwrap();
    assert_eq!(models.len(), 7);
    for device in devices() {
        for (name, about) in models {
            let model = built(about, 1, &device);
            let own = model.network().variables().unwrap();
            let row =
                |v: &NetworkVariable| json!({"name": v.name(), "shape": v.shape(), "trainable": v.is_trainable()});
            assert_eq!(Value::from(own.iter().map(row).collect::<Vec<_>>()), about["variables"], "{name}");
            let model = with_keras_weights(name, &model);
            runs_as_keras(name, about, &model).unwrap();
            // What went in comes out.
            for (n, variable) in model.network().variables().unwrap().iter().enumerate() {
                let got = variable.read(model.network().weights()).unwrap();
                assert_eq!(got, floats(&format!("{name}.w{n}")).1, "{name} {}", variable.name());
            }
        }
    }
}

#[test]
fn weights_in_other_places_are_noticed() {
    let index = index();
    let (mut turned, mut gates) = (0, 0);
    for (name, about) in index["models"].as_object().unwrap() {
        let model = with_keras_weights(name, &built(about, 1, &Device::Cpu));
        let variables = model.network().variables().unwrap();
        for v in variables.iter().filter(|v| v.shape().len() == 2 && v.name() != "embeddings") {
            let data = v.read(model.network().weights()).unwrap();
            let &[rows, columns] = v.shape() else { unreachable!() };
            let wrong = |data: Vec<f32>| {
                let mut weights = Weights::clone(model.network().weights());
                v.write(data, &mut weights).unwrap();
                let changed = model.with_weights(Arc::new(weights)).unwrap();
                assert!(runs_as_keras(name, about, &changed).is_err(), "{name} {v:?}");
            };
            if rows > 1 && columns > 1 {
                // The matrix as if its layout were that of PyTorch.
                wrong((0..data.len()).map(|n| data[n % rows * columns + n / rows]).collect());
                turned += 1;
            }
            if v.name() == "recurrent_kernel" && columns >= 3 * rows {
                // The first two gates the other way round.
                let other = |n: usize| {
                    if n < rows {
                        n + rows
                    } else if n < 2 * rows {
                        n - rows
                    } else {
                        n
                    }
                };
                wrong((0..data.len()).map(|n| data[n / columns * columns + other(n % columns)]).collect());
                gates += 1;
            }
        }
    }
    assert!(turned > 30 && gates > 10, "{turned} {gates}");
}

/// Mean, standard deviation, smallest and largest number.
fn moments(w: &[f32]) -> [f64; 4] {
    let n = w.len() as f64;
    let mean = w.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = w.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let ends = w.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v.into()), h.max(v.into())));
    [mean, variance.sqrt(), ends.0, ends.1]
}

/// Whether two draws have the same distribution, as far as their moments tell. `bounded` says whether it has ends.
fn alike(got: [f64; 4], want: [f64; 4], count: usize, bounded: bool) -> bool {
    let std = want[1];
    if std == 0.0 {
        return got == want;
    }
    // Five deviations of each estimate.
    let share = 5.0 / (count as f64).sqrt();
    let near = |n: usize, by: f64| (got[n] - want[n]).abs() <= by * std;
    let ends = if bounded { 12.0 / (count as f64).min(400.0) } else { 2.0 };
    near(0, 1.5 * share) && near(1, 1.5 * share) && near(2, ends) && near(3, ends)
}

fn expected(about: &Value) -> Vec<(String, Vec<usize>, [f64; 4])> {
    let row = |v: &Value| {
        let want = ["mean", "std", "low", "high"].map(|n| v[n].as_f64().unwrap());
        (v["name"].as_str().unwrap().to_owned(), sizes(&v["shape"]), want)
    };
    about["variables"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn initial_weights_are_drawn_as_those_of_keras() {
    let index = index();
    let draws = index["draws"].as_object().unwrap();
    assert!(draws.len() > 130, "{}", draws.len());
    let mut seen = 0;
    for (name, about) in draws {
        let model = built(about, 3, &Device::Cpu);
        let text = about["json"].as_str().unwrap();
        let bounded = !["ormal", "rthogonal"].iter().any(|n| text.contains(n));
        let variables = model.network().variables().unwrap();
        let want = expected(about);
        assert_eq!(variables.len(), want.len(), "{name}");
        for (v, (of, shape, want)) in variables.iter().zip(want) {
            assert_eq!((v.name(), v.shape()), (&of[..], &shape[..]), "{name}");
            let data = v.read(model.network().weights()).unwrap();
            let got = moments(&data);
            assert!(alike(got, want, data.len(), bounded), "{name} {of} {shape:?}: {got:?}, not {want:?}");
            seen += usize::from(want[1] > 0.0);
        }
        // The same seed gives the same weights, another one others.
        let read = |seed| built(about, seed, &Device::Cpu).network().weights().as_ref().clone();
        assert!(read(3) == *model.network().weights().as_ref(), "{name}");
    }
    assert!(seen > 150, "{seen}");
}

/// Models whose initializers were left at the defaults would be noticed.
#[test]
fn other_initializers_are_noticed() {
    let index = index();
    let mut noticed = 0;
    for about in index["draws"].as_object().unwrap().values() {
        let mut description: Value = serde_json::from_str(about["json"].as_str().unwrap()).unwrap();
        for layer in description["config"]["layers"].as_array_mut().unwrap() {
            layer["config"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("_initializer"));
        }
        let model = Model::from_keras_json(&description.to_string(), 3, &Device::Cpu).unwrap();
        let other = model.network().variables().unwrap().iter().zip(expected(about)).any(|(v, (_, _, want))| {
            let data = v.read(model.network().weights()).unwrap();
            !alike(moments(&data), want, data.len(), false)
        });
        noticed += usize::from(other);
    }
    // The others are the default of their layer, or have its deviation.
    assert!(noticed > 100, "{noticed}");
}

fn refused(change: impl Fn(&mut Value)) -> String {
    let text = json!({
        "class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": [
            {"class_name": "InputLayer", "module": "keras.layers", "config": {"batch_shape": [null, 4, 3], "name": "x"}},
            {"class_name": "LSTM", "module": "keras.layers", "config": {"name": "rnn", "units": 2,
                "return_sequences": true}},
            {"class_name": "GRU", "module": "keras.layers", "config": {"name": "gru", "units": 2}},
            {"class_name": "Dense", "module": "keras.layers", "config": {"name": "dense", "units": 2}},
            {"class_name": "BatchNormalization", "module": "keras.layers", "config": {"name": "norm"}},
            {"class_name": "Dropout", "module": "keras.layers", "config": {"name": "drop", "rate": 0.5}},
        ]},
    });
    let mut description = text.clone();
    change(&mut description);
    match Model::from_keras_json(&description.to_string(), 0, &Device::Cpu) {
        Ok(_) => panic!("was built: {description}"),
        Err(e) => {
            assert!(matches!(e, Error::Network { .. } | Error::Run(_)), "{e:?}");
            e.to_string()
        }
    }
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let with = |layer: usize, option: &'static str, value: Value| {
        refused(move |d| d["config"]["layers"][layer]["config"][option] = value.clone())
    };
    let class =
        |name: &str, config: Value| json!({"module": "keras.initializers", "class_name": name, "config": config});
    let cases = [
        (with(3, "kernel_initializer", json!("glorot")), "layer `dense` (Dense): `kernel_initializer` = \"glorot\""),
        (with(3, "kernel_initializer", class("GlorotUniform", json!({"seed": 4}))), "`seed` of its own"),
        (with(3, "kernel_initializer", class("Constant", json!({"value": [1, 2]}))), "its `value` is not one number"),
        (with(3, "kernel_initializer", class("VarianceScaling", json!({"mode": "fan"}))), "its `mode` is `fan`"),
        (with(3, "kernel_initializer", class("Orthogonal", json!({"rank": 2}))), "its `rank` is not known"),
        (
            with(3, "kernel_initializer", json!({"class_name": "mine>Own", "config": {}})),
            "no initializer of Keras's own",
        ),
        (with(3, "bias_initializer", json!("identity")), "initializer: `dims` of an identity must be two"),
        (with(3, "embeddings_initializer", json!("zeros")), "is not an option of Dense"),
        (with(3, "depth_initializer", json!("zeros")), "`depth_initializer` = \"zeros\" is not supported"),
        (with(4, "moving_mean_initializer", json!("ones")), "`moving_mean_initializer` = \"ones\" is not supported"),
        (
            with(5, "kernel_initializer", json!("zeros")),
            "layer `drop` (Dropout): `kernel_initializer` is not supported",
        ),
        (
            with(1, "bias_initializer", json!("he_normal")),
            "layer `rnn` (LSTM): `bias_initializer` depends on the shape",
        ),
        (with(1, "gamma_initializer", json!("zeros")), "layer `rnn` (LSTM): `gamma_initializer` is not supported"),
        (
            with(2, "recurrent_initializer", json!("identity")),
            "layer `gru` (GRU): `recurrent_initializer` is an identity",
        ),
        (with(1, "units", json!(0)), "layer `rnn` (LSTM): `units` must be"),
        (refused(|d| d["keras_version"] = json!("1.2.2")), "networks are built of Keras 2 and 3"),
        (refused(|d| d["class_name"] = json!("Mine")), "no Sequential or functional model"),
        (refused(|d| d["config"]["layers"][0] = d["config"]["layers"][1].clone()), "has the name of another layer"),
        (refused(|d| drop(d["config"]["layers"].as_array_mut().unwrap().remove(0))), "the model has no input shape"),
    ];
    for (got, want) in cases {
        assert!(got.contains(want), "{got:?} says nothing of {want:?}");
    }
    for text in ["", "[", "{}", "7", "\"Sequential\""] {
        let e = Model::from_keras_json(text, 0, &Device::Cpu).unwrap_err();
        assert!(matches!(e, Error::Network { .. }), "{e:?}");
    }
}

#[test]
fn a_variable_takes_as_many_elements_as_it_has() {
    let index = index();
    let model = built(&index["models"]["chain"], 0, &Device::Cpu);
    let variables = model.network().variables().unwrap();
    let mut weights = Weights::clone(model.network().weights());
    let e = variables[1].write(vec![0.0; 3], &mut weights).unwrap_err();
    assert!(e.to_string().contains("simple_rnn.kernel"), "{e}");
    assert!(variables[1].read(&Weights::new()).is_err());
    let shapes = Model::keras_output_shapes(index["models"]["chain"]["json"].as_str().unwrap()).unwrap();
    assert_eq!(shapes, [vec![None, None, Some(2)]]);
}
