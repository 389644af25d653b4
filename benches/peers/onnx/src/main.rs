//! Runs an ONNX file in another engine: `recurve-onnx-peers tract|rten MODEL.onnx INPUTS OUTPUTS`.
//!
//! INPUTS is a folder with a text file `NAME.txt` for each input: its type, its shape and its numbers, a line each. The
//! outputs, in the file's order, are written to OUTPUTS as `N.txt`, in the same form. A typed error of the engine is
//! printed, and the exit code is 3.

#![forbid(unsafe_code)]

mod text;

use std::path::Path;
use std::process::ExitCode;
use text::{Outcome, read, write};

fn tract(model: &str, inputs: &Path, outputs: &Path) -> Outcome<()> {
    use tract_onnx::prelude::*;
    let mut plan = tract_onnx::onnx().model_for_path(model)?;
    let names: Vec<String> = plan.input_outlets()?.iter().map(|o| plan.node(o.node).name.clone()).collect();
    let mut values = TVec::new();
    for (n, name) in names.iter().enumerate() {
        let x = read(&inputs.join(format!("{name}.txt")))?;
        let value: Tensor = match x.whole {
            true => Tensor::from_shape(&x.shape, &x.numbers.iter().map(|&v| v as i32).collect::<Vec<_>>())?,
            false => Tensor::from_shape(&x.shape, &x.numbers.iter().map(|&v| v as f32).collect::<Vec<_>>())?,
        };
        let kind = value.datum_type();
        plan.set_input_fact(n, InferenceFact::dt_shape(kind, &x.shape))?;
        values.push(value.into());
    }
    let plan = plan.into_optimized()?.into_runnable()?;
    for (n, y) in plan.run(values)?.iter().enumerate() {
        let y = y.cast_to::<f32>()?;
        let data: Vec<f32> = y.to_plain_array_view::<f32>()?.iter().copied().collect();
        write(outputs, n, y.shape(), &data)?;
    }
    Ok(())
}

fn rten(model: &str, inputs: &Path, outputs: &Path) -> Outcome<()> {
    use rten::{Model, Value};
    let model = Model::load_file(model)?;
    let mut values = Vec::new();
    for &id in model.input_ids() {
        let name = model.node_info(id).and_then(|i| i.name().map(str::to_owned)).ok_or("an input without a name")?;
        let x = read(&inputs.join(format!("{name}.txt")))?;
        let value = match x.whole {
            true => Value::from_shape(&x.shape, x.numbers.iter().map(|&v| v as i32).collect::<Vec<_>>())?,
            false => Value::from_shape(&x.shape, x.numbers.iter().map(|&v| v as f32).collect::<Vec<_>>())?,
        };
        values.push((id, value.into()));
    }
    for (n, y) in model.run(values, model.output_ids(), None)?.into_iter().enumerate() {
        let Value::FloatTensor(y) = y else { return Err("an output that is no float tensor".into()) };
        use rten_tensor::{AsView, Layout};
        let shape: Vec<usize> = y.shape().to_vec();
        write(outputs, n, &shape, &y.to_vec())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, engine, model, inputs, outputs] = &arguments[..] else {
        eprintln!("usage: recurve-onnx-peers tract|rten MODEL.onnx INPUTS OUTPUTS");
        return ExitCode::from(2);
    };
    let run = match engine.as_str() {
        "tract" => tract,
        "rten" => rten,
        other => {
            eprintln!("no engine {other}");
            return ExitCode::from(2);
        }
    };
    match run(model, Path::new(inputs), Path::new(outputs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::from(3)
        }
    }
}
