//! Printing tensors in the style of PyTorch.

use crate::{Result, Tensor, concat};
use core::fmt;

/// Larger tensors are printed abbreviated: only the ends of long dimensions are shown.
const MOST: usize = 1000;

/// Number of elements shown at each end of an abbreviated dimension.
const EDGE: usize = 3;

/// Length of a line in characters.
const LINE: usize = 80;

/// Prints the elements as PyTorch does, then element type, shape and device. A dimension of a large tensor is
/// abbreviated to three elements at each end. Floats have four digits after the point unless the format says otherwise
/// (`{t:.2}`). Elements on a GPU are read back; if that fails, the error is printed instead.
/// ```
/// use recurve_tensor::{Device, Tensor};
/// let t = Tensor::from_f32(&[1.0, -2.5, 0.25, 10.0], &[2, 2], &Device::Cpu)?;
/// let text = t.to_string();
/// assert!(text.starts_with("[[ 1.0000, -2.5000],\n [ 0.2500, 10.0000]]\nTensor f32 [2, 2] on CPU"));
/// # Ok::<(), recurve_tensor::Error>(())
/// ```
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match shown(self) {
            Ok((ends, numbers)) => {
                let format = Format::new(&numbers, self.dtype().is_float(), f.precision().unwrap_or(4));
                let texts: Vec<String> = numbers.iter().map(|&v| format.padded(v)).collect();
                f.write_str(&brackets(&texts, ends.dims(), self.dims(), format.width, 0))?;
            }
            Err(e) => write!(f, "<{e}>")?,
        }
        write!(f, "\n{self:?}")
    }
}

/// The part of a tensor that is printed, and the elements of that part.
fn shown(t: &Tensor) -> Result<(Tensor, Vec<f64>)> {
    let mut ends = t.clone();
    if t.shape().count() > MOST {
        for (axis, &size) in t.dims().iter().enumerate().filter(|(_, size)| **size > 2 * EDGE) {
            ends = concat(&[&ends.slice(axis, 0..EDGE)?, &ends.slice(axis, size - EDGE..size)?], axis)?;
        }
    }
    let numbers = if t.dtype().is_float() {
        ends.to_vec()?.into_iter().map(f64::from).collect()
    } else {
        ends.to_vec_u32()?.into_iter().map(f64::from).collect()
    };
    Ok((ends, numbers))
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// `1`
    Integer,
    /// `1.`, where all elements are whole
    Whole,
    /// `1.0000`
    Fixed,
    /// `1.0000e+00`
    Scientific,
}

/// The format shared by all elements of a tensor.
struct Format {
    style: Style,
    digits: usize,
    width: usize,
}

impl Format {
    fn new(numbers: &[f64], float: bool, digits: usize) -> Self {
        let decisive = || numbers.iter().copied().filter(|v| !float || v.is_finite() && *v != 0.0);
        let largest = decisive().fold(0.0, |a: f64, v| a.max(v.abs()));
        let least = decisive().fold(f64::INFINITY, |a: f64, v| a.min(v.abs()));
        let whole = decisive().all(|v| v.fract() == 0.0);
        let style = match () {
            () if !float => Style::Integer,
            () if largest / least > 1000.0 || largest > 1e8 || (!whole && least < 1e-4) => Style::Scientific,
            () if whole => Style::Whole,
            () => Style::Fixed,
        };
        let mut format = Self { style, digits, width: 1 };
        format.width = decisive().map(|v| format.text(v).len()).max().unwrap_or(1);
        format
    }

    fn text(&self, v: f64) -> String {
        match self.style {
            _ if v.is_nan() => "nan".into(),
            _ if v.is_infinite() => v.to_string(),
            Style::Integer => format!("{v:.0}"),
            Style::Whole => format!("{v:.0}."),
            Style::Fixed => format!("{v:.*}", self.digits),
            Style::Scientific => {
                let text = format!("{v:.*e}", self.digits);
                let (digits, exponent) = text.split_once('e').expect("asked for");
                let exponent: i32 = exponent.parse().expect("a number");
                format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
            }
        }
    }

    fn padded(&self, v: f64) -> String {
        format!("{:>1$}", self.text(v), self.width)
    }
}

/// Elements in brackets, one pair per dimension. `dims` is the shape of the elements, which are the ends of a tensor of
/// shape `all`.
fn brackets(texts: &[String], dims: &[usize], all: &[usize], width: usize, indent: usize) -> String {
    let Some((&size, inner)) = dims.split_first() else { return texts.concat() };
    let mut parts: Vec<String> = if inner.is_empty() {
        texts.to_vec()
    } else {
        texts.chunks(texts.len() / size).map(|t| brackets(t, inner, &all[1..], width, indent + 1)).collect()
    };
    if size < all[0] {
        parts.insert(EDGE, if inner.is_empty() { " ..." } else { "..." }.into());
    }
    let apart = |lines: usize| format!(",{}{}", "\n".repeat(lines), " ".repeat(indent + 1));
    let inside = if inner.is_empty() {
        let per_line = (LINE.saturating_sub(indent) / (width + 2)).max(1);
        parts.chunks(per_line).map(|line| line.join(", ")).collect::<Vec<_>>().join(&apart(1))
    } else {
        parts.join(&apart(inner.len()))
    };
    format!("[{inside}]")
}
