//! The time of a call of a model on the CPU, for `benches/peers/python_calls.py`, which times the same call from Python.

use recurve::testing::{example_inputs, example_onnx_inputs};
use recurve::{Device, HostArray, HostData, Input, Model, OnnxModel, Tensor};
use recurve_benches::quantile;
use recurve_graph::Data;
use std::error::Error;
use std::time::Instant;

/// The array as a tensor on the CPU.
fn tensor(x: &HostArray) -> Result<Tensor, recurve::TensorError> {
    Tensor::from_f32(&x.to_f32(), &x.shape, &Device::Cpu)
}

/// Prints the median time of a call in microseconds: inputs as tensors, outputs as vectors.
pub(crate) fn run(path: &str, batch: usize, seq: usize, calls: usize) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(calls);
    let mut timed = |call: &mut dyn FnMut() -> Result<usize, recurve::Error>| -> Result<(), recurve::Error> {
        for n in 0..calls + calls / 10 {
            let began = Instant::now();
            assert!(call()? > 0, "a call gives something");
            // The first of them warm up.
            if n >= calls / 10 {
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(())
    };
    if path.to_lowercase().ends_with(".onnx") {
        let model = OnnxModel::open(path, &Device::Cpu)?;
        let inputs = example_onnx_inputs(&model, batch, seq, &[])?;
        let inputs = inputs.iter().map(|(name, x)| Ok((&name[..], Data::from(tensor(x)?))));
        let inputs = inputs.collect::<Result<Vec<_>, recurve::TensorError>>()?;
        timed(&mut || {
            let all = model.run_data(inputs.iter().map(|(name, x)| (*name, x.clone())))?;
            all.iter().map(|(_, y)| Ok(y.as_tensor().map_or(0, |t| t.to_vec().map_or(0, |v| v.len())))).sum()
        })?;
    } else {
        let model = Model::open(path, &Device::Cpu)?;
        let inputs = example_inputs(&model, batch, seq)?.into_iter().map(|(name, x)| {
            let input = match x.data {
                HostData::Float(_) => Input::Device(tensor(&x)?),
                _ => Input::Host(x),
            };
            Ok((name, input))
        });
        let inputs = inputs.collect::<Result<Vec<_>, recurve::TensorError>>()?;
        timed(&mut || {
            let all = model.run_all(inputs.iter().map(|(name, x)| (&name[..], x.clone())))?;
            all.iter().map(|(_, y)| Ok(y.to_vec()?.len())).sum()
        })?;
    }
    println!("{:.3}", quantile(&times, 0.5));
    Ok(())
}
