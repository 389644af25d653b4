//! Runs an ONNX file that Burn has made code of: `run FOLDER/NAME/model.onnx INPUTS OUTPUTS`.
//!
//! The code is part of this program: FOLDER is the variable `BURN_CASES` when it is compiled, after `import FOLDER`.
//! INPUTS, OUTPUTS and the exit code are those of `benches/peers/onnx`.

#![forbid(unsafe_code)]

#[path = "../../onnx/src/text.rs"]
mod text;

use burn::tensor::{Device, Int, Tensor, TensorData};
use std::path::Path;
use std::process::ExitCode;
use text::{Input, Outcome, read, write};

include!(concat!(env!("BURN_CASES"), "/cases.rs"));

/// A parameter of `forward`.
trait Given {
    fn of(input: Input) -> Self;
}

impl<const D: usize> Given for Tensor<D> {
    fn of(input: Input) -> Self {
        let numbers: Vec<f32> = input.numbers.iter().map(|&v| v as f32).collect();
        Tensor::from_data(TensorData::new(numbers, input.shape), &Device::default())
    }
}

impl<const D: usize> Given for Tensor<D, Int> {
    fn of(input: Input) -> Self {
        let numbers: Vec<i32> = input.numbers.iter().map(|&v| v as i32).collect();
        Tensor::from_data(TensorData::new(numbers, input.shape), &Device::default())
    }
}

/// The input of this name. Burn writes the names of inputs in lower case.
fn given<T: Given>(inputs: &Path, name: &str) -> Outcome<T> {
    for file in std::fs::read_dir(inputs)? {
        let path = file?.path();
        let is_text = path.extension().is_some_and(|e| e == "txt");
        if is_text && path.file_stem().is_some_and(|s| s.eq_ignore_ascii_case(name)) {
            return Ok(T::of(read(&path)?));
        }
    }
    Err(format!("no input {name}").into())
}

struct Output {
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

fn output<const D: usize>(y: Tensor<D>) -> Output {
    Output { shape: y.dims().to_vec(), numbers: y.into_data().iter::<f32>().collect() }
}

/// What `forward` returns: a tensor, or a tuple of them in the order of the file's outputs.
trait Outputs {
    fn all(self) -> Vec<Output>;
}

impl<const A: usize> Outputs for Tensor<A> {
    fn all(self) -> Vec<Output> {
        vec![output(self)]
    }
}

impl<const A: usize, const B: usize> Outputs for (Tensor<A>, Tensor<B>) {
    fn all(self) -> Vec<Output> {
        vec![output(self.0), output(self.1)]
    }
}

impl<const A: usize, const B: usize, const C: usize> Outputs for (Tensor<A>, Tensor<B>, Tensor<C>) {
    fn all(self) -> Vec<Output> {
        vec![output(self.0), output(self.1), output(self.2)]
    }
}

fn outcome(model: &str, inputs: &Path, outputs: &Path) -> Outcome<()> {
    let case = Path::new(model).parent().and_then(Path::file_name).and_then(|n| n.to_str()).ok_or("no case")?;
    for (n, y) in run(case, inputs)?.iter().enumerate() {
        write(outputs, n, &y.shape, &y.numbers)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, inputs, outputs] = &arguments[..] else {
        eprintln!("usage: run FOLDER/NAME/model.onnx INPUTS OUTPUTS");
        return ExitCode::from(2);
    };
    match outcome(model, Path::new(inputs), Path::new(outputs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::from(3)
        }
    }
}
