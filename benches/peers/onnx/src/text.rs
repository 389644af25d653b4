//! Tensors as text files of three lines: the type, the shape, the numbers.

use std::fmt::Write as _;
use std::path::Path;

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub struct Input {
    pub whole: bool,
    pub shape: Vec<usize>,
    pub numbers: Vec<f64>,
}

pub fn read(path: &Path) -> Outcome<Input> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines();
    let kind = lines.next().ok_or("no type")?;
    let shape = lines.next().ok_or("no shape")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let numbers = lines.next().unwrap_or("").split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    Ok(Input { whole: kind == "int32", shape, numbers })
}

pub fn write(folder: &Path, n: usize, shape: &[usize], data: &[f32]) -> Outcome<()> {
    let mut text = String::from("float32\n");
    shape.iter().for_each(|d| write!(text, "{d} ").expect("memory"));
    text.push('\n');
    data.iter().for_each(|v| write!(text, "{v:e} ").expect("memory"));
    Ok(std::fs::write(folder.join(format!("{n}.txt")), text)?)
}
