//! Keras's layers around recurrent ones, held against Keras's own numbers; what they refuse; masks, lengths, steps and
//! files.

use recurve::testing::{Tolerance, compare, cross_check, reference_outputs};
use recurve::{
    Activation, ActivationFunction, ActivationLayer, AdditiveAttention, Attention, AveragePooling1d,
    BatchNormalization, Bidirectional, CallArgs, Conv1d, Conv2d, DataFormat, Dense, DepthwiseConv1d, Device, Dot,
    Embedding, ExportOptions, Functional, GlobalAveragePooling1d, Gru, HostArray, HostData, Input, LayerConfig,
    LayerNormalization, Lstm, Masking, MaxPooling1d, Model, Network, NetworkConfig, OnnxModel, PRelu, Padding, Permute,
    Relu, RepeatVector, Reshape, Sequential, SimpleRnn, Softmax, Streams, Tensor, UpSampling1d, Weights, ZeroPadding1d,
};
use recurve_tests::parity::keras_layer;
use recurve_tests::{Arrays, Golden, devices, fixtures, golden, wide};
use serde_json::Value;
use std::sync::Arc;

/// The expected values were computed in f64 and rounded to f32. Sums of some tens of terms of about 1 in f32 are some
/// ULP away; divisions by a standard deviation magnify that.
const TOLERANCE: Tolerance = Tolerance::new(5e-6);

/// The f64 reference differs from the expected values by their rounding, and from the weights' exact values by nothing.
const OF_THE_REFERENCE: Tolerance = Tolerance::new(3e-7);

/// A model of Keras with its numbers.
struct Case {
    name: String,
    network: Value,
    arrays: Arrays,
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(fixtures().join("keras_layers.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let mut arrays = golden("keras_layers.safetensors");
    let one = |case: &Value| {
        let name = case["name"].as_str().unwrap().to_owned();
        let arrays = arrays.remove(&name).unwrap();
        Case { name, network: case["network"].clone(), arrays }
    };
    cases.iter().map(one).collect()
}

/// The description of a recurrent layer of the fixture in Recurve's form.
fn recurrent(layer: &Value) -> LayerConfig {
    let units = layer["units"].as_u64().unwrap() as usize;
    let all = layer["return_sequences"].as_bool().unwrap();
    let spec: recurve::RecurrentSpec = match layer["keras"].as_str().unwrap() {
        "LSTM" => Lstm::new(units).return_sequences(all).into(),
        "GRU" => Gru::new(units).return_sequences(all).into(),
        other => panic!("{other}"),
    };
    if layer["bidirectional"] == true { Bidirectional::new(spec).into() } else { LayerConfig::Recurrent(spec) }
}

impl Case {
    /// The description in Recurve's form.
    fn config(&self, network: &Value) -> Result<NetworkConfig, String> {
        let mut network = network.clone();
        for l in network["layers"].as_array_mut().unwrap() {
            if l["layer"].get("keras").is_some() {
                l["layer"] = serde_json::to_value(recurrent(&l["layer"])).unwrap();
            }
        }
        serde_json::from_value(network).map_err(|e| e.to_string())
    }

    /// The network, or why a description is refused.
    fn build(&self, network: &Value, change: impl FnOnce(&mut Weights)) -> Result<Network, String> {
        let config = self.config(network)?;
        let mut weights = Weights::new();
        for (n, layer) in config.layers.iter().enumerate() {
            let list = (0..).map_while(|k| self.arrays.get(&format!("{n}.{k}")).cloned());
            keras_layer(&mut weights, &format!("layers.{n}"), &layer.layer, &mut list.collect::<Vec<_>>().into_iter());
        }
        change(&mut weights);
        Network::new(&config, Arc::new(weights), &Device::Cpu).map_err(|e| e.to_string())
    }

    fn model(&self) -> Model {
        let network = self.build(&self.network, |_| {}).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        Model::new(&self.name, network)
    }

    fn inputs(&self, model: &Model) -> Vec<(String, HostArray)> {
        let inputs = model.info().network.inputs.iter();
        inputs
            .map(|i| {
                let Golden { shape, data } = self.arrays[&format!("x.{}", i.name)].clone();
                let data = match i.ids {
                    true => HostData::Int(data.iter().map(|&v| v as i64).collect()),
                    false => HostData::Float(data),
                };
                (i.name.clone(), HostArray { shape, data })
            })
            .collect()
    }

    /// The largest error of a model's output, or what is wrong.
    fn check(&self, model: &Model) -> Result<f64, String> {
        let inputs = self.inputs(model);
        let given = inputs.iter().map(|(n, a)| (&n[..], Input::Host(a.clone())));
        let y = model.run(given).map_err(|e| e.to_string())?;
        let want = &self.arrays["y"];
        if y.dims() != want.shape {
            return Err(format!("{:?}, expected {:?}", y.dims(), want.shape));
        }
        let got = compare(&y.to_vec().unwrap(), &wide(&want.data), TOLERANCE);
        got.map(|a| a.worst_error).map_err(|e| e.to_string())
    }
}

#[test]
fn every_layer_has_kerass_numbers_on_every_device() {
    let cases = cases();
    assert!(cases.len() > 200);
    for device in devices() {
        let check = |case: &Case| case.check(&case.model().to_device(&device).unwrap());
        let wrong: Vec<String> =
            cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.name))).collect();
        assert!(wrong.is_empty(), "on {device}:\n{}", wrong.join("\n"));
    }
}

/// The references of the graph's operators have Keras's numbers too, so what the cross-check compares with is not wrong
/// in the same way as the devices.
#[test]
fn the_f64_reference_has_kerass_numbers() {
    for case in cases() {
        let model = case.model();
        let inputs = case.inputs(&model);
        let given: Vec<(&str, HostArray)> = inputs.iter().map(|(n, a)| (&n[..], a.clone())).collect();
        let truth = reference_outputs(&model, &given).unwrap();
        let got: Vec<f32> = truth.last().unwrap().iter().map(|&v| v as f32).collect();
        compare(&got, &wide(&case.arrays["y"].data), OF_THE_REFERENCE).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        cross_check(&model, &given, &devices(), Tolerance::F32).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

/// A file that is saved and opened describes the same layers and gives the same bits.
#[test]
fn files_and_summaries_know_the_layers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    for case in cases() {
        let first = case.model();
        first.save(&path).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let second = Model::open(&path, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(first.info(), second.info(), "{}", case.name);
        let inputs = case.inputs(&first);
        let run = |m: &Model| {
            let given = inputs.iter().map(|(n, a)| (&n[..], Input::Host(a.clone())));
            m.run(given).unwrap().to_vec().unwrap()
        };
        assert_eq!(run(&first), run(&second), "{}", case.name);
        let summary = first.summary();
        let params: usize = case
            .arrays
            .iter()
            .filter(|(n, _)| n.contains(|c: char| c.is_ascii_digit()) && !n.starts_with('x'))
            .map(|(_, g)| g.data.len())
            .sum();
        assert_eq!(summary.total_params, params, "{}", case.name);
        for l in &summary.layers {
            assert!(summary.to_string().contains(l.class), "{}", case.name);
        }
    }
}

/// Networks of these layers are written as ONNX, and read again they have the same numbers.
/// `golden/check_keras_exports.py` runs the files by ONNX Runtime.
#[test]
fn they_are_written_as_onnx() {
    let folder = std::env::var_os("RECURVE_EXPORTS").map(std::path::PathBuf::from);
    for case in cases() {
        let model = case.model();
        let bytes = model.to_onnx(&ExportOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        if let Some(folder) = &folder {
            std::fs::write(folder.join(format!("{}.onnx", case.name)), &bytes).unwrap();
        }
        let file = OnnxModel::from_bytes(bytes, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let inputs = case.inputs(&model);
        let y = file.run(inputs.iter().map(|(n, a)| (&n[..], a))).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let (want, (_, y)) = (&case.arrays["y"], &y[0]);
        let HostData::Float(got) = &y.data else { panic!("{}", case.name) };
        assert_eq!(y.shape, want.shape, "{}", case.name);
        compare(got, &wide(&want.data), TOLERANCE).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

/// Every weight matters: a changed element is noticed.
#[test]
fn a_changed_weight_is_noticed() {
    let mut changed = 0;
    for case in cases() {
        let names: Vec<String> = case.model().network().weights().iter().map(|(n, _)| n.to_owned()).collect();
        for name in names {
            // Keys of timesteps that nobody asks for, ids that do not occur: the last element may not matter.
            let noticed = (0..3).any(|n| {
                let network = case.build(&case.network, |w| {
                    let weight = w.get(&name).unwrap();
                    let (shape, mut data) = (weight.shape().to_vec(), weight.to_vec().unwrap());
                    let at = n * (data.len() - 1) / 2;
                    data[at] += 0.25;
                    w.insert(name.clone(), &shape, data).unwrap();
                });
                case.check(&Model::new("changed", network.unwrap())).is_err()
            });
            assert!(noticed, "{}: {name}", case.name);
            changed += 1;
        }
    }
    assert!(changed > 300, "{changed}");
}

/// Wrong readings of an option are noticed: for each a case, an option of one of its layers, and another value.
#[test]
fn a_wrong_reading_of_an_option_is_noticed() {
    let all = cases();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (name, layer, option, value) in [
        ("conv1d_same_even", 0, "padding", r#""causal""#),
        ("conv1d_same_strided", 0, "padding", r#""causal""#),
        ("conv1d_causal", 0, "padding", r#""same""#),
        ("conv1d_same_dilated", 0, "dilation_rate", "2"),
        ("conv1d_groups", 0, "groups", "1"),
        ("conv1d_causal_strided", 0, "strides", "2"),
        ("conv2d_same", 0, "activation", r#"{"name": "relu"}"#),
        ("conv2d_dilated", 0, "dilation_rate", "[1, 2]"),
        ("transpose1d_padded", 0, "output_padding", "0"),
        ("transpose1d_same_even", 0, "padding", r#""valid""#),
        ("depthwise1d", 0, "depth_multiplier", "1"),
        ("max1d_same", 0, "padding", r#""valid""#),
        ("average1d_same", 0, "type", r#""max_pooling1d""#),
        ("global_average1d_first", 0, "keepdims", "false"),
        ("global_average2d_first", 0, "data_format", r#""channels_last""#),
        ("global_average1d_masked", 0, "mask_zero", "false"),
        ("up_sampling2d_bilinear", 0, "interpolation", r#""nearest""#),
        ("cropping1d", 0, "cropping", "[1, 2]"),
        ("zero_padding1d", 0, "padding", "[1, 2]"),
        ("batch_norm", 0, "epsilon", "0.01"),
        ("layer_norm_rms_axis", 0, "rms_scaling", "false"),
        ("layer_norm_apart", 0, "axis", "[1, 2]"),
        ("flatten_first", 0, "data_format", r#""channels_last""#),
        ("permute", 0, "dims", "[2, 3, 1]"),
        ("reshape", 0, "target_shape", "[2, 3, 4]"),
        ("relu_all", 0, "threshold", "0.0"),
        ("relu_max_slope", 0, "negative_slope", "0.0"),
        ("leaky_relu", 0, "negative_slope", "0.2"),
        ("softmax_axis1", 0, "axis", "2"),
        ("activation_gelu", 0, "activation", r#""gelu_tanh""#),
        ("dot_last", 0, "normalize", "false"),
        ("attention_causal", 0, "use_causal_mask", "false"),
        ("attention_concat", 0, "score_mode", r#""dot""#),
        ("concatenate_steps", 2, "axis", "2"),
        ("multiply_masks", 2, "type", r#""add""#),
        ("maximum_masked_values", 2, "type", r#""minimum""#),
    ] {
        let case = all.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}"));
        let mut network = case.network.clone();
        let own = &mut network["layers"][layer]["layer"];
        assert_ne!(own[option], json(value), "{name} {option}");
        own[option] = json(value);
        let run = |network| case.check(&Model::new("changed", network));
        let noticed = case.build(&network, |_| {}).and_then(run).is_err();
        assert!(noticed, "{name}: {option} = {value}");
    }
}

/// Whatever number an option has, a description is accepted or refused, without a panic.
#[test]
fn changed_numbers_in_descriptions() {
    /// The paths of all numbers of a value.
    fn numbers(v: &Value, path: &str, into: &mut Vec<String>) {
        match v {
            Value::Number(_) => into.push(path.to_owned()),
            Value::Array(all) => all.iter().enumerate().for_each(|(n, v)| numbers(v, &format!("{path}/{n}"), into)),
            Value::Object(all) => all.iter().for_each(|(k, v)| numbers(v, &format!("{path}/{k}"), into)),
            _ => {}
        }
    }
    let (mut accepted, mut refused) = (0, 0);
    for case in cases() {
        let mut paths = Vec::new();
        let weights = case.model().network().weights().clone();
        for (n, l) in case.network["layers"].as_array().unwrap().iter().enumerate() {
            if l["layer"].get("keras").is_none() {
                numbers(&l["layer"], &format!("/layers/{n}/layer"), &mut paths);
            }
        }
        for path in paths {
            for value in ["0", "1", "-1", "7", "-9223372036854775808", "4294967296", "18446744073709551615", "1e30"] {
                let mut network = case.network.clone();
                *network.pointer_mut(&path).unwrap() = serde_json::from_str(value).unwrap();
                let Ok(config) = case.config(&network) else {
                    refused += 1;
                    continue;
                };
                // The weights of the case may not fit; shapes are found before that.
                let walked = config.visit_weights(|_, _| Ok(()));
                let built = walked.and_then(|()| Network::new(&config, weights.clone(), &Device::Cpu));
                *if built.is_ok() { &mut accepted } else { &mut refused } += 1;
            }
        }
    }
    assert!(accepted > 500 && refused > 3000, "{accepted} accepted, {refused} refused");
}

/// Without the mask, exactly those models give other numbers whose layer passes a mask on.
#[test]
fn the_layers_that_pass_a_mask_on() {
    let keep = [
        "activation",
        "alpha_dropout",
        "batch_norm",
        "dense",
        "dropout",
        "elu",
        "gaussian_dropout",
        "gaussian_noise",
        "layer_norm",
        "leaky_relu",
        "prelu",
        "relu",
        "softmax",
        "spatial_dropout1d",
    ];
    let mut met = Vec::new();
    for case in cases() {
        let Some(layer) = case.name.strip_prefix("mask_through_") else { continue };
        let mut network = case.network.clone();
        network["layers"][0]["layer"]["mask_zero"] = false.into();
        let differs = case.check(&Model::new("no mask", case.build(&network, |_| {}).unwrap())).is_err();
        assert_eq!(differs, keep.contains(&layer), "{layer}");
        met.push(layer.to_owned());
    }
    assert!(met.len() > 25 && keep.iter().all(|k| met.iter().any(|m| m == k)), "{met:?}");
}

fn floats(dims: &[usize], seed: u64) -> Tensor {
    let data = recurve_tests::Random(seed).floats(dims.iter().product(), 1.0);
    Tensor::from_f32(&data, dims, &Device::Cpu).unwrap()
}

/// What layers refuse: each with the shape of its input, and a word of the message.
#[test]
fn what_is_not_possible_is_refused_by_name() {
    let sequence = vec![None, Some(5), Some(4)];
    let image = vec![None, Some(5), Some(6), Some(4)];
    let first = DataFormat::ChannelsFirst;
    let refused: Vec<(LayerConfig, &Vec<Option<usize>>, &str)> = vec![
        (Conv1d::new(0, 3).into(), &sequence, "filters"),
        (Conv1d::new(3, 0).into(), &sequence, "kernel_size"),
        (Conv1d::new(3, 2).strides(0).into(), &sequence, "strides"),
        (Conv1d::new(3, 2).dilation_rate(0).into(), &sequence, "dilation_rate"),
        (Conv1d::new(3, 2).groups(2).into(), &sequence, "groups"),
        (Conv1d::new(4, 2).groups(3).into(), &sequence, "groups"),
        (Conv1d::new(4, 2).groups(0).into(), &sequence, "groups"),
        (Conv1d::new(4, 6).into(), &sequence, "6 elements"),
        (Conv1d::new(4, usize::MAX).dilation_rate(usize::MAX).into(), &sequence, "kernel_size"),
        (Conv1d::new(4, 3).into(), &image, "timesteps"),
        (Conv2d::new(4, [2, 2]).into(), &sequence, "height"),
        (Conv2d::new(4, [2, 2]).padding(Padding::Causal).into(), &image, "causal"),
        (DepthwiseConv1d::new(2).padding(Padding::Causal).into(), &sequence, "causal"),
        (DepthwiseConv1d::new(2).depth_multiplier(0).into(), &sequence, "depth_multiplier"),
        (recurve::Conv1dTranspose::new(2, 3).output_padding(1).into(), &sequence, "output_padding"),
        (MaxPooling1d::new(0).into(), &sequence, "pool_size"),
        (MaxPooling1d::new(6).into(), &sequence, "6 elements"),
        (AveragePooling1d::new(2).padding(Padding::Causal).into(), &sequence, "causal"),
        (recurve::Cropping1d::new([3, 2]).into(), &sequence, "more than 5"),
        (ZeroPadding1d::new([usize::MAX, 0]).into(), &sequence, "padding"),
        (UpSampling1d::new(0).into(), &sequence, "size"),
        (BatchNormalization::new().axis(3).into(), &sequence, "axis"),
        (BatchNormalization::new().axis(0).into(), &sequence, "axis"),
        (BatchNormalization::new().epsilon(f32::NAN).into(), &sequence, "epsilon"),
        (LayerNormalization::new().axis(&[-1, 1]).into(), &sequence, "same end"),
        (LayerNormalization::new().axis(&[1, 1]).into(), &sequence, "twice"),
        (LayerNormalization::new().axis(&[]).into(), &sequence, "axis"),
        (Reshape::new(&[3, -1]).into(), &sequence, "target_shape"),
        (Reshape::new(&[-1, -1]).into(), &sequence, "target_shape"),
        (Reshape::new(&[0, 20]).into(), &sequence, "target_shape"),
        (Permute::new(&[1, 1]).into(), &sequence, "dims"),
        (Permute::new(&[2, 1, 3]).into(), &sequence, "4 dimensions"),
        (RepeatVector::new(2).into(), &sequence, "features"),
        (RepeatVector::new(0).into(), &sequence, "from 1"),
        (PRelu::new().shared_axes(&[3]).into(), &sequence, "shared_axes"),
        (recurve::LeakyRelu::new(-0.1).into(), &sequence, "negative_slope"),
        (Relu::new().max_value(-1.0).into(), &sequence, "max_value"),
        (Softmax::new().axis(0).into(), &sequence, "axis"),
        (ActivationLayer::new(ActivationFunction::Celu { alpha: 0.0 }).into(), &sequence, "alpha"),
        (GlobalAveragePooling1d::new().data_format(first).into(), &image, "channels"),
        (Attention::new().into(), &sequence, "query"),
        (Dot::new([1, 1]).into(), &sequence, "two"),
        (recurve::SpatialDropout1d::new(1.5).into(), &sequence, "rate"),
        (recurve::SpatialDropout2d::new(0.5).into(), &sequence, "4 dimensions"),
        (recurve::GaussianNoise::new(-1.0).into(), &sequence, "stddev"),
    ];
    for (layer, shape, word) in refused {
        let class = layer.class_name();
        let e = Sequential::new().add(layer).build(shape, &Device::Cpu).expect_err(word).to_string();
        assert!(e.contains(word), "{class}: {e}");
    }
    let masked = |layer: LayerConfig| {
        Sequential::new().add(Masking::new(0.0)).add(layer).build(&[None, None, Some(4)], &Device::Cpu)
    };
    for (layer, word) in
        [(Softmax::new().into(), "mask"), (GlobalAveragePooling1d::new().data_format(first).into(), "channels")]
    {
        let e = masked(layer).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
    }
    // Sizes that only a run shows.
    let network = Sequential::new().add(Conv1d::new(2, 4)).build(&[None, None, Some(3)], &Device::Cpu).unwrap();
    let e = network.forward(&floats(&[1, 3, 3], 1)).unwrap_err().to_string();
    assert!(e.contains("Conv") && e.contains("[4] elements"), "{e}");
    let mut net = Functional::new();
    let x = net.input("x", &[None, None, Some(4)]);
    let y = net.input("y", &[None, None, Some(3)]);
    for (layer, word) in [
        (LayerConfig::from(Attention::new()), "key"),
        (AdditiveAttention::new().into(), "key"),
        (Attention::new().dropout(1.5).into(), "dropout"),
        (Dot::new([2, 2]).into(), "axis 2"),
        (Dot::new([0, 2]).into(), "axes"),
    ] {
        let e = net.add(layer, &[&x, &y]).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
    }
    // A layer whose weights have the shape of a whole sequence is not shared by sequences of another length.
    let mut net = Functional::new();
    let a = net.input("a", &[None, Some(2), Some(6)]);
    let b = net.input("b", &[None, Some(3), Some(4)]);
    let shared = net.layer("p", PRelu::new());
    net.call(shared, &[&a]).unwrap();
    let e = net.call(shared, &[&b]).unwrap_err().to_string();
    assert!(e.contains("shared"), "{e}");
    // Layers that read the batch first, behind one that reads the timesteps first.
    let layers = Sequential::new().add(Gru::new(3).time_major(true).return_sequences(true)).add(Conv1d::new(2, 3));
    let e = layers.build(&[None, None, Some(2)], &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("time_major"), "{e}");
}

/// Masks and lengths that the caller gives reach every layer whose timesteps are those of the input, and no other.
#[test]
fn masks_and_lengths_of_the_caller() {
    let build = |layers: Vec<LayerConfig>| {
        layers.into_iter().fold(Sequential::new(), Sequential::add).build(&[None, None, Some(3)], &Device::Cpu).unwrap()
    };
    let x = floats(&[2, 6, 3], 3);
    let lengths = Tensor::from_u32(&[4, 6], &[2], &Device::Cpu).unwrap();
    let mask = Tensor::from_u32(&[1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1], &[2, 6], &Device::Cpu).unwrap();
    let with_lengths = CallArgs { lengths: Some(&lengths), ..CallArgs::default() };
    let with_mask = CallArgs { mask: Some(&mask), ..CallArgs::default() };
    let run = |n: &Network, args: &CallArgs<'_>| n.forward_all(&x, args).map(|y| y[0].to_vec().unwrap());

    // A convolution that keeps the timesteps: the recurrent layer behind it stops at the length.
    let network = build(vec![Conv1d::new(4, 3).padding(Padding::Same).into(), Lstm::new(3).into()]);
    let got = run(&network, &with_lengths).unwrap();
    assert!(network.takes_lengths());
    assert_eq!(got, run(&network, &with_mask).unwrap());
    assert_ne!(got, run(&network, &CallArgs::default()).unwrap());
    // The output of the convolution, cut at the length.
    let inner = network.forward_traced(&[("input", &x)], &CallArgs::default()).unwrap().remove(0).1;
    let cut = inner.slice(0, 0..1).unwrap().slice(1, 0..4).unwrap();
    let spec = recurve::RecurrentSpec::from(Lstm::new(3));
    let lstm = recurve::RecurrentLayer::new("lstm", &spec, 4, network.weights(), "layers.1", &Device::Cpu).unwrap();
    let want = lstm.call(&cut, &CallArgs::default()).unwrap()[0].to_vec().unwrap();
    compare(&got[..3], &wide(&want), Tolerance::new(1e-6)).unwrap();

    // Behind other timesteps nothing could read them.
    for layers in [
        vec![Conv1d::new(4, 3).into(), Lstm::new(3).into()],
        vec![MaxPooling1d::new(2).into(), Lstm::new(3).into()],
        vec![LayerConfig::from(Permute::new(&[2, 1]))],
    ] {
        let network = build(layers);
        for (args, word) in [(&with_lengths, "lengths"), (&with_mask, "mask")] {
            let e = run(&network, args).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("timesteps"), "{e}");
        }
        assert!(!network.takes_lengths());
    }
    // A decoder behind the vector of an encoder: lengths are those of the encoder.
    let network = build(vec![Gru::new(3).into(), RepeatVector::new(4).into(), Gru::new(2).into()]);
    assert_eq!(run(&network, &with_lengths).unwrap(), run(&network, &with_mask).unwrap());
    assert_ne!(run(&network, &with_lengths).unwrap(), run(&network, &CallArgs::default()).unwrap());

    // Pooling takes a mask, and refuses lengths.
    let network = build(vec![Dense::new(3).into(), GlobalAveragePooling1d::new().into()]);
    let got = run(&network, &with_mask).unwrap();
    let dense = network.forward_traced(&[("input", &x)], &CallArgs::default()).unwrap().remove(0).1.to_vec().unwrap();
    let mean = |c: usize| (0..4).map(|t| f64::from(dense[t * 3 + c])).sum::<f64>() / 4.0;
    compare(&got[..3], &[mean(0), mean(1), mean(2)], Tolerance::new(1e-6)).unwrap();
    let e = run(&network, &with_lengths).unwrap_err().to_string();
    assert!(e.contains("lengths"), "{e}");
    assert!(!network.takes_lengths());
    // A layer that finds the padding by itself takes lengths as little as the one behind it.
    let masked = build(vec![Masking::new(0.0).into(), Lstm::new(2).into()]);
    assert!(!masked.takes_lengths());
    run(&masked, &with_lengths).unwrap_err();
    for mask_zero in [true, false] {
        let layers = Sequential::new().add(Embedding::new(5, 3).mask_zero(mask_zero)).add(Lstm::new(2));
        assert_eq!(layers.build(&[None, None], &Device::Cpu).unwrap().takes_lengths(), !mask_zero);
    }
    let other = Tensor::from_u32(&[1; 4], &[2, 2], &Device::Cpu).unwrap();
    let e = run(&network, &CallArgs { mask: Some(&other), ..CallArgs::default() }).unwrap_err().to_string();
    assert!(e.contains("mask [batch, timesteps]"), "{e}");

    // Attention of a sequence to itself: the mask of the caller is that of a layer before.
    let attend = |mask_value: Option<f32>| {
        let mut net = Functional::new();
        let mut x = net.input("x", &[None, None, Some(3)]);
        if let Some(v) = mask_value {
            x = net.add(Masking::new(v), &[&x]).unwrap().remove(0);
        }
        let y = net.add(Attention::new().use_scale(true), &[&x, &x]).unwrap().remove(0);
        let y = net.add(SimpleRnn::new(2), &[&y]).unwrap().remove(0);
        net.output("y", &y).build(&Device::Cpu).unwrap()
    };
    let (mut plain, masking) = (attend(None), attend(Some(0.0)));
    let mut padded = x.to_vec().unwrap();
    padded[12..18].fill(0.0);
    let padded = Tensor::from_f32(&padded, &[2, 6, 3], &Device::Cpu).unwrap();
    let names: Vec<String> = plain.weights().iter().map(|(n, _)| n.to_owned()).collect();
    for name in names {
        let other = name.replace("layers.1", "layers.2").replace("layers.0", "layers.1");
        let w = masking.weights().get(&other).unwrap();
        plain.set_weight(&name, w.shape(), w.to_vec().unwrap()).unwrap();
    }
    let want = masking.forward(&padded).unwrap().to_vec().unwrap();
    let got = plain.forward_all(&padded, &with_mask).unwrap()[0].to_vec().unwrap();
    assert_eq!(got, want);
    assert_ne!(plain.forward(&padded).unwrap().to_vec().unwrap(), want);
}

/// Layers that see one timestep run on streams; the others are refused by name.
#[test]
fn streams() {
    let build = |layers: Vec<LayerConfig>, shape: &[Option<usize>]| {
        layers.into_iter().fold(Sequential::new(), Sequential::add).build(shape, &Device::Cpu).unwrap()
    };
    let open = [None, None, Some(3)];
    let network = build(
        vec![
            Conv1d::new(4, 1).activation(Activation::Tanh).into(),
            BatchNormalization::new().into(),
            Gru::new(4).return_sequences(true).into(),
            LayerNormalization::new().into(),
            PRelu::new().shared_axes(&[1]).into(),
            ActivationLayer::new(ActivationFunction::Softmax).into(),
            Softmax::new().into(),
        ],
        &open,
    );
    let x = floats(&[2, 5, 3], 8);
    let all = network.forward(&x).unwrap().to_vec().unwrap();
    let mut state = None;
    for t in 0..5 {
        let frame = x.slice(1, t..t + 1).unwrap().reshape(&[2, 3]).unwrap();
        let (y, next) = network.step(&frame, state.as_ref()).unwrap();
        state = Some(next);
        let want: Vec<f64> = (0..2).flat_map(|b| &all[(b * 5 + t) * 4..][..4]).map(|&v| v.into()).collect();
        compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-6)).unwrap();
    }
    Streams::new(&network).unwrap();
    let fixed = [None, Some(1), Some(3)];
    for (layer, class) in [
        (LayerConfig::from(Conv1d::new(2, 3).padding(Padding::Causal)), "Conv1D"),
        (MaxPooling1d::new(1).strides(2).into(), "MaxPooling1D"),
        (GlobalAveragePooling1d::new().into(), "GlobalAveragePooling1D"),
        (ZeroPadding1d::new([1, 0]).into(), "ZeroPadding1D"),
        (UpSampling1d::new(2).into(), "UpSampling1D"),
        (Softmax::new().axis(1).into(), "Softmax"),
        (Permute::new(&[2, 1]).into(), "Permute"),
    ] {
        let network = build(vec![layer], &open);
        let e = network.step(&floats(&[2, 3], 1), None).unwrap_err().to_string();
        assert!(e.contains(class) && e.contains("timestep"), "{e}");
    }
    for layer in [LayerConfig::from(BatchNormalization::new().axis(1)), PRelu::new().into()] {
        let class = layer.class_name();
        let e = build(vec![layer], &fixed).step(&floats(&[2, 3], 1), None).unwrap_err().to_string();
        assert!(e.contains(class), "{e}");
    }
}

/// Names are those that Keras gives.
#[test]
fn names() {
    let network = Sequential::new()
        .add(Embedding::new(9, 4))
        .add(Conv1d::new(4, 2))
        .add(recurve::Conv1dTranspose::new(3, 2))
        .add(PRelu::new().shared_axes(&[1]))
        .add(Relu::new())
        .add(recurve::LeakyRelu::new(0.1))
        .add(recurve::Elu::new(1.0))
        .add(MaxPooling1d::new(2))
        .add(ActivationLayer::new(Activation::Relu))
        .add(recurve::GlobalMaxPooling1d::new())
        .build(&[None, None], &Device::Cpu)
        .unwrap();
    let names: Vec<&str> = network.config().layers.iter().map(|l| &l.name[..]).collect();
    let want = [
        "embedding",
        "conv1d",
        "conv1d_transpose",
        "p_re_lu",
        "re_lu",
        "leaky_re_lu",
        "elu",
        "max_pooling1d",
        "activation",
        "global_max_pooling1d",
    ];
    assert_eq!(names, want);
    let ids = Tensor::from_u32(&[1, 2, 3, 4, 5, 6], &[1, 6], &Device::Cpu).unwrap();
    assert_eq!(network.forward(&ids).unwrap().dims(), [1, 3]);
}
