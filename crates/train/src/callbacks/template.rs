//! Names of files with numbers in them, in Python's form: `{epoch:02d}-{val_loss:.2f}`.

use crate::{Error, Result};

/// A part of a name.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Number { name: String, form: Form },
}

/// A subset of Python's format specifications: an optional 0, width and precision, and `d`, `f`, `e` or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Form {
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

/// A name with numbers in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    of: &'static str,
    parts: Vec<Part>,
}

impl Template {
    /// Reads it. Two braces stand for one.
    pub(super) fn new(of: &'static str, text: &str) -> Result<Self> {
        let bad = |message: String| Error::Option { of, argument: "path", message };
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let (own, behind) = behind.split_once('}').filter(|_| brace == "{").ok_or_else(|| {
                bad(format!(
                    "must have its braces in pairs, and those that are meant as such twice, but it is `{text}`"
                ))
            })?;
            let (name, form) = own.split_once(':').unwrap_or((own, ""));
            let form = Form::new(form).filter(|_| !name.is_empty()).ok_or_else(|| {
                bad(format!("has `{{{own}}}`; the forms are {{name}}, {{name:02d}}, {{name:.2f}} and {{name:.2e}}"))
            })?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Number { name: name.into(), form });
            rest = behind;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self { of, parts })
    }

    /// The name with these whole numbers and these numbers.
    pub(super) fn fill(&self, whole: &[(&str, usize)], numbers: &[(&str, f64)]) -> Result<String> {
        let mut out = String::new();
        for part in &self.parts {
            let (name, form) = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Number { name, form } => (name, form),
            };
            let bad = |message: String| Error::Option { of: self.of, argument: "path", message };
            let filled = if let Some((_, n)) = whole.iter().find(|(of, _)| of == name) {
                form.whole(*n)
            } else if let Some((_, v)) = numbers.iter().find(|(of, _)| of == name) {
                form.number(*v).ok_or_else(|| bad(format!("gives `{name}` the form of a whole number")))?
            } else {
                let names = whole.iter().map(|(n, _)| *n).chain(numbers.iter().map(|(n, _)| *n));
                return Err(bad(format!("has `{name}`, but there are {}", names.collect::<Vec<_>>().join(", "))));
            };
            out.push_str(&filled);
        }
        Ok(out)
    }
}

impl Form {
    fn new(text: &str) -> Option<Self> {
        let kind = text.chars().last().filter(|c| "dfe".contains(*c));
        let text = kind.map_or(text, |_| &text[..text.len() - 1]);
        let (width, precision) = match text.split_once('.') {
            Some((w, p)) => (w, Some(p.parse::<u16>().ok()?.into())),
            None => (text, None),
        };
        let zeros = width.starts_with('0');
        let width = if width.is_empty() { 0 } else { width.parse::<u8>().ok()?.into() };
        let known = precision.is_none() || matches!(kind, Some('f' | 'e'));
        known.then_some(Self { zeros, width, precision, kind })
    }

    fn whole(self, n: usize) -> String {
        match self.kind {
            Some('f' | 'e') => self.number(n as f64).unwrap_or_default(),
            _ if self.zeros => format!("{n:0width$}", width = self.width),
            _ => format!("{n:width$}", width = self.width),
        }
    }

    /// None for the form of whole numbers.
    fn number(self, v: f64) -> Option<String> {
        let digits = self.precision.unwrap_or(6);
        let text = match self.kind {
            Some('d') => return None,
            Some('e') => {
                // Python's exponents have a sign and two digits.
                let text = format!("{v:.digits$e}");
                match text.split_once('e') {
                    Some((m, e)) => {
                        let e: i32 = e.parse().ok()?;
                        format!("{m}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
                    }
                    None => text,
                }
            }
            Some(_) => format!("{v:.digits$}"),
            None => format!("{v:?}"),
        };
        let missing = self.width.saturating_sub(text.len());
        let (sign, rest) = if self.zeros && text.starts_with('-') { text.split_at(1) } else { ("", &*text) };
        let fill = if self.zeros { "0" } else { " " }.repeat(missing);
        Some(if self.zeros { format!("{sign}{fill}{rest}") } else { fill + &text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right side is what Python's `str.format` gives.
    #[test]
    fn numbers_have_pythons_form() {
        let numbers = [("val_loss", 0.123_456), ("loss", 12_345.678), ("small", -1.5e-7)];
        for (template, want) in [
            ("m.safetensors", "m.safetensors"),
            ("m-{epoch}.st", "m-7.st"),
            ("{epoch:02d}-{val_loss:.2f}", "07-0.12"),
            ("{epoch:3d}|{epoch:.1f}|{val_loss}", "  7|7.0|0.123456"),
            ("{loss:.3e} {small:.1e} {small:010.2e}", "1.235e+04 -1.5e-07 -01.50e-07"),
            ("{{{epoch}}} {loss:f}", "{7} 12345.678000"),
            ("{val_loss:08.3f} {val_loss:8.3f}", "0000.123    0.123"),
        ] {
            assert_eq!(Template::new("t", template).unwrap().fill(&[("epoch", 7)], &numbers).unwrap(), want);
        }
        for bad in ["{", "}", "a{epoch", "{}", "{epoch:x}", "{epoch:.2d}", "{epoch:>3}", "{loss:.99999999f}"] {
            assert!(Template::new("t", bad).is_err(), "{bad}");
        }
        for unknown in ["{acc}", "{loss:d}", "{loss:02d}"] {
            assert!(Template::new("t", unknown).unwrap().fill(&[("epoch", 7)], &numbers).is_err(), "{unknown}");
        }
    }
}
