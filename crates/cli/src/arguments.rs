//! Arguments shared by several commands, and reading and writing the files that they name.

use crate::sound;
use crate::terminal::say;
use recurve::{
    Device, DeviceSelector, HostArray, HostData, InputConfig, Model, OnnxValue, StatePair, read_array, read_named_array,
};
use std::error::Error;
use std::path::{Path, PathBuf};

/// An argument `NAME=FILE`, or `NAME=FILE:ARRAY` for an array of a `.npz` file.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The name of the array in a `.npz` file; NAME by default.
    pub(crate) array: Option<String>,
}

impl std::str::FromStr for NamedFile {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                let (path, array) = match path.rsplit_once(':') {
                    Some((file, array)) if file.ends_with(".npz") => (file, Some(array.to_owned())),
                    _ => (path, None),
                };
                Ok(Self { name: name.into(), path: path.into(), array })
            }
            _ => Err("NAME=FILE is needed".into()),
        }
    }
}

impl NamedFile {
    fn extension(&self) -> String {
        self.path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
    }

    /// The array in the file.
    pub(crate) fn read(&self) -> Result<HostArray, Box<dyn Error>> {
        Ok(match &self.array {
            Some(array) => read_named_array(&self.path, array)?,
            None => read_array(&self.path, &self.name)?,
        })
    }
}

/// An argument `IN=OUT`: the output that is the next call's input.
pub(crate) fn parse_state(s: &str) -> Result<StatePair, String> {
    match s.split_once('=') {
        Some((input, output)) if !input.is_empty() && !output.is_empty() => {
            Ok(StatePair { input: input.into(), output: output.into() })
        }
        _ => Err("IN=OUT is needed: an input, and the output that it is in the next call".into()),
    }
}

/// An input of a model: its name, and its dimensions as far as they are known.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// `None` if not even their number is known.
    pub(crate) dims: Option<Vec<Option<usize>>>,
}

impl<'a> From<&'a OnnxValue> for Wanted<'a> {
    fn from(v: &'a OnnxValue) -> Self {
        let dims = (!v.kind.unranked).then(|| v.kind.dims.iter().map(recurve_graph::Dim::size).collect());
        Self { name: &v.name, dims }
    }
}

impl<'a> From<&'a InputConfig> for Wanted<'a> {
    fn from(i: &'a InputConfig) -> Self {
        Self { name: &i.name, dims: Some(i.shape.clone()) }
    }
}

/// The shape that so many numbers take: open dimensions are 1, but the last one takes what is left. `None` if they do
/// not fit.
pub(crate) fn fitted(dims: &[Option<usize>], count: usize) -> Option<Vec<usize>> {
    let mut shape: Vec<usize> = dims.iter().map(|d| d.unwrap_or(1)).collect();
    let known = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n > 0)?;
    if known != count {
        let last = dims.iter().rposition(Option::is_none).filter(|_| count.is_multiple_of(known))?;
        shape[last] = count / known;
    }
    Some(shape)
}

/// Reads arrays from files. Numbers of a `.txt` or a `.wav` file take the shape of the model's input.
pub(crate) fn read_inputs<'a>(
    files: &[NamedFile],
    wanted: impl Iterator<Item = Wanted<'a>>,
) -> Result<Vec<(String, HostArray)>, Box<dyn Error>> {
    if let Some((_, f)) = files.iter().enumerate().find(|(n, f)| files[..*n].iter().any(|g| g.name == f.name)) {
        return Err(format!("input `{}` is given twice", f.name).into());
    }
    let wanted: Vec<_> = wanted.collect();
    let read = |f: &NamedFile| -> Result<HostArray, Box<dyn Error>> {
        let mut array = match &f.extension()[..] {
            "txt" => read_text(&f.path)?,
            "wav" => sound::read(&f.path)?.array(),
            _ => return f.read(),
        };
        let dims = wanted.iter().find(|w| w.name == f.name).and_then(|w| w.dims.as_ref());
        // An array that fits already keeps its shape.
        let fits = |d: &Vec<Option<usize>>| {
            d.len() == array.shape.len() && d.iter().zip(&array.shape).all(|(d, n)| d.is_none_or(|d| d == *n))
        };
        if let Some(shape) = dims.filter(|d| !fits(d)).and_then(|d| fitted(d, array.shape.iter().product())) {
            array.shape = shape;
        }
        Ok(array)
    };
    files.iter().map(|f| Ok((f.name.clone(), read(f)?))).collect()
}

/// Bytes of a file of numbers, at most.
const MAX_TEXT: u64 = 1 << 30;

/// The numbers of a text file, a row a line: separated by spaces or commas, `#` before what is no number.
fn read_text(path: &Path) -> Result<HostArray, String> {
    let at = |message: &dyn std::fmt::Display| format!("{}: {message}", path.display());
    let about = std::fs::metadata(path).map_err(|e| at(&e))?;
    if !about.is_file() || about.len() > MAX_TEXT {
        return Err(at(&"is no file, or has more than 1 GiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| at(&e))?;
    let (mut rows, mut width) = (0, None);
    let (mut floats, mut ints) = (Vec::new(), Some(Vec::new()));
    for (n, line) in text.lines().enumerate() {
        let before = floats.len();
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
            let number = word.parse::<f32>().map_err(|_| {
                at(&format!("line {}: `{}` is no number", n + 1, word.chars().take(40).collect::<String>()))
            })?;
            floats.push(number);
            ints = ints.and_then(|mut all: Vec<i64>| {
                all.push(word.parse().ok()?);
                Some(all)
            });
        }
        let here = floats.len() - before;
        if here > 0 {
            rows += 1;
            if *width.get_or_insert(here) != here {
                let first = width.unwrap_or(0);
                return Err(at(&format!("line {} has {here} numbers, but the first has {first}", n + 1)));
            }
        }
    }
    let Some(width) = width else { return Err(at(&"has no numbers")) };
    let shape = match (rows, width) {
        (1, n) | (n, 1) => vec![n],
        (rows, width) => vec![rows, width],
    };
    Ok(HostArray { shape, data: ints.map_or(HostData::Float(floats), HostData::Int) })
}

/// Checks that an output file can be written, so that a command fails before its work and not after it.
pub(crate) fn check_output(path: &Path) -> Result<(), String> {
    recurve_formats::check_writable(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file, completely or not at all.
pub(crate) fn write_output(path: &Path, bytes: &[u8]) -> Result<(), String> {
    recurve_formats::write_file(path, |w| w.write_all(bytes)).map_err(|e| format!("{}: {e}", path.display()))
}

/// Larger sizes are refused: no layer or input has them.
const MAX_SIZE: usize = 1 << 24;

/// Parses a size of a batch, a sequence or a layer.
pub(crate) fn parse_size(s: &str) -> Result<usize, String> {
    match s.trim().parse() {
        Ok(n) if (1..=MAX_SIZE).contains(&n) => Ok(n),
        _ => Err(format!("a whole number of at least 1 and at most {MAX_SIZE} is needed")),
    }
}

/// Opens a model, a Keras description with its weights in another file included.
pub(crate) fn open_model(path: &Path, weights: Option<&Path>, device: &Device) -> Result<Model, recurve::Error> {
    match weights {
        Some(weights) => Model::open_keras(path, weights, device),
        None => Model::open(path, device),
    }
}

/// Says what a user should know of how a file was read.
pub(crate) fn say_notes(notes: &[String]) -> Result<(), Box<dyn Error>> {
    notes.iter().try_for_each(|n| say(format_args!("note:   {n}")))
}

pub(crate) fn parse_device(s: &str) -> Result<DeviceSelector, String> {
    s.parse().map_err(|e: recurve::TensorError| e.to_string())
}

/// Joins names for use in a sentence.
pub(crate) fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Of many names those that are most like this one, in a sentence.
pub(crate) fn near<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> String {
    const FEW: usize = 5;
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all.dedup();
    let lower = name.to_lowercase();
    let contains = |n: &str| n.to_lowercase().contains(&lower);
    let likeness = |n: &&str| strsim::jaro_winkler(&lower, &n.to_lowercase()) + f64::from(contains(n));
    all.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    all.truncate(FEW);
    names(all.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_shape_of_their_input() {
        assert_eq!(fitted(&[None, None], 7), Some(vec![1, 7]));
        assert_eq!(fitted(&[Some(1), Some(2), Some(3)], 6), Some(vec![1, 2, 3]));
        assert_eq!(fitted(&[None, Some(2)], 6), Some(vec![3, 2]));
        assert_eq!(fitted(&[], 1), Some(vec![]));
        assert_eq!(fitted(&[Some(4)], 6), None);
        assert_eq!(fitted(&[None, Some(4)], 6), None);
    }

    #[test]
    fn near_names_come_first() {
        let all = ["Conv_75", "Conv_77", "GRU_153", "Sigmoid_159"];
        assert!(near("conv_75", all.into_iter()).starts_with("`Conv_75`, `Conv_77`"));
        assert!(near("gru", all.into_iter()).starts_with("`GRU_153`"));
    }

    #[test]
    fn text_is_read_by_rows() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.txt");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            read_text(&path)
        };
        let a = read("# two rows\n1 2, 3\n\n4 5 6 # end\n").expect("an array");
        assert_eq!((a.shape, a.data), (vec![2, 3], HostData::Int(vec![1, 2, 3, 4, 5, 6])));
        let a = read("0.5\n-1e3\n").expect("an array");
        assert_eq!((a.shape, a.data), (vec![2], HostData::Float(vec![0.5, -1e3])));
        for (text, word) in [("1 2\n3", "line 2"), ("1 x", "`x`"), ("", "no numbers")] {
            assert!(read(text).expect_err("refused").contains(word));
        }
    }
}
