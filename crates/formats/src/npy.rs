//! The `.npy` format: a header of a few fields, then the elements.
//!
//! The header is a Python literal, `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`. The parser accepts
//! only this form: three fields, each once, without nested values.
//!
//! Source: `numpy.lib.format`, versions 1.0 to 3.0.

use crate::arrays::{HostArray, HostData};
use crate::files::{cut, elements, room, short};
use half::f16;
use std::io::{self, Read, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Largest size of a header, in bytes. numpy itself reads at most 10,000 by default.
const MAX_HEADER: usize = 1 << 16;

/// Largest number of dimensions.
const MAX_DIMENSIONS: usize = 32;

/// The contents of a header.
#[derive(Debug, PartialEq)]
struct Header {
    element: Element,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

/// A supported element type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    F16,
    F32,
    F64,
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The size of an element in a [`HostData`], in bytes.
    fn host_bytes(self) -> usize {
        if matches!(self, Self::F16 | Self::F32 | Self::F64) { size_of::<f32>() } else { size_of::<i64>() }
    }
}

/// Reads an array from `len` bytes, header included. The array may take up to `limit` bytes of memory.
pub(crate) fn read(r: &mut dyn Read, len: u64, limit: u64) -> Result<HostArray, String> {
    let (header, used) = read_header(r)?;
    let Header { element, big_endian, fortran, shape } = header;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let needed = count.and_then(|n| Some((n, n.checked_mul(element.bytes())?, n.checked_mul(element.host_bytes())?)));
    let Some((count, bytes, host)) = needed else {
        return Err(format!("has the shape {shape:?}, which exceeds any memory"));
    };
    let given = len.saturating_sub(used as u64);
    if bytes as u64 != given {
        return Err(format!("has the shape {shape:?}, which takes {bytes} bytes, but {given} follow the header"));
    }
    if host as u64 > limit {
        return Err(format!(
            "has the shape {shape:?}, which takes {host} bytes of memory, but at most {limit} are used"
        ));
    }
    let data = match element {
        Element::F16 => HostData::Float(all(r, count, big_endian, |b| Ok(f16::from_le_bytes(b).to_f32()))?),
        Element::F32 => HostData::Float(all(r, count, big_endian, |b| Ok(f32::from_le_bytes(b)))?),
        Element::F64 => HostData::Float(all(r, count, big_endian, |b| Ok(f64::from_le_bytes(b) as f32))?),
        Element::Bool => HostData::Int(all(r, count, big_endian, |[b]| match b {
            0 | 1 => Ok(b.into()),
            _ => Err(format!("contains {b} where False or True is needed")),
        })?),
        Element::I8 => HostData::Int(all(r, count, big_endian, |b| Ok(i8::from_le_bytes(b).into()))?),
        Element::I16 => HostData::Int(all(r, count, big_endian, |b| Ok(i16::from_le_bytes(b).into()))?),
        Element::I32 => HostData::Int(all(r, count, big_endian, |b| Ok(i32::from_le_bytes(b).into()))?),
        Element::I64 => HostData::Int(all(r, count, big_endian, |b| Ok(i64::from_le_bytes(b)))?),
        Element::U8 => HostData::Int(all(r, count, big_endian, |b| Ok(u8::from_le_bytes(b).into()))?),
        Element::U16 => HostData::Int(all(r, count, big_endian, |b| Ok(u16::from_le_bytes(b).into()))?),
        Element::U32 => HostData::Int(all(r, count, big_endian, |b| Ok(u32::from_le_bytes(b).into()))?),
        Element::U64 => HostData::Int(all(r, count, big_endian, |b| {
            let v = u64::from_le_bytes(b);
            i64::try_from(v).map_err(|_| format!("contains {v}, but at most {} is read", i64::MAX))
        })?),
    };
    let data = match (data, fortran && shape.len() > 1) {
        (data, false) => data,
        (HostData::Float(v), true) => HostData::Float(row_major(&v, &shape)?),
        (HostData::Int(v), true) => HostData::Int(row_major(&v, &shape)?),
    };
    Ok(HostArray { shape, data })
}

/// Reads all elements; `decode` converts the little-endian bytes of one.
fn all<T, const N: usize>(
    r: &mut dyn Read,
    count: usize,
    big_endian: bool,
    decode: impl Fn([u8; N]) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    elements(r, count, |mut bytes: [u8; N]| {
        if big_endian {
            bytes.reverse();
        }
        decode(bytes)
    })
}

/// Converts elements in Fortran order (first index fastest) to row-major order.
fn row_major<T: Copy>(from: &[T], shape: &[usize]) -> Result<Vec<T>, String> {
    let mut out = room(from.len())?;
    let mut strides = vec![1; shape.len()];
    for d in 1..shape.len() {
        strides[d] = strides[d - 1] * shape[d - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..from.len() {
        out.push(from[at]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < shape[d] {
                break;
            }
            at -= strides[d] * shape[d];
            index[d] = 0;
        }
    }
    Ok(out)
}

/// Reads the header. Returns it with its size in bytes.
fn read_header(r: &mut dyn Read) -> Result<(Header, usize), String> {
    let mut start = [0; 8];
    r.read_exact(&mut start).map_err(|e| format!("is no .npy file: {}", cut(e)))?;
    let ([magic @ .., major, minor], mut wide) = (start, [0; 4]);
    if magic != *MAGIC {
        return Err("is not a .npy file: its first bytes are wrong".into());
    }
    let width = match (major, minor) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        _ => return Err(format!("is a .npy file of version {major}.{minor}, but 1.0 to 3.0 are read")),
    };
    r.read_exact(&mut wide[..width]).map_err(cut)?;
    let len = u32::from_le_bytes(wide) as usize;
    if len > MAX_HEADER {
        return Err(format!("has a header of {len} bytes, but at most {MAX_HEADER} are read"));
    }
    let mut text = vec![0; len];
    r.read_exact(&mut text).map_err(cut)?;
    let text = str::from_utf8(&text).map_err(|_| "has a header that is not UTF-8".to_owned())?;
    let header = Parser { rest: text }.header()?;
    Ok((header, start.len() + width + len))
}

/// The rest of a header that has not been parsed yet.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let field = self.string()?;
            self.expect(':')?;
            let again = match field {
                "descr" if self.peek() == Some('[') => {
                    return Err("holds records, but plain numbers are needed".into());
                }
                "descr" => descr.replace(self.string()?).is_some(),
                "fortran_order" => fortran.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(format!("has a header with the unknown field `{}`", short(field))),
            };
            if again {
                return Err(format!("has a header with the field `{field}` twice"));
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        self.skip();
        if !self.rest.is_empty() {
            return Err(self.bad("nothing"));
        }
        let missing = |field: &str| format!("has a header without `{field}`");
        let (element, big_endian) = element(descr.ok_or_else(|| missing("descr"))?)?;
        let fortran = fortran.ok_or_else(|| missing("fortran_order"))?;
        Ok(Header { element, big_endian, fortran, shape: shape.ok_or_else(|| missing("shape"))? })
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn peek(&mut self) -> Option<char> {
        self.skip();
        self.rest.chars().next()
    }

    fn take(&mut self, c: char) -> bool {
        self.skip();
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.take(c) { Ok(()) } else { Err(self.bad(&format!("`{c}`"))) }
    }

    fn bad(&self, needed: &str) -> String {
        let got = if self.rest.is_empty() { "its end".into() } else { format!("`{}`", short(self.rest)) };
        format!("has a header with {got} where {needed} is needed")
    }

    /// Parses a quoted string. No valid string contains an escape.
    fn string(&mut self) -> Result<&'a str, String> {
        let quote = match self.peek() {
            Some(q @ ('\'' | '"')) => q,
            _ => return Err(self.bad("a quoted string")),
        };
        match self.rest[1..].split_once(quote) {
            Some((text, rest)) if !text.contains('\\') => {
                self.rest = rest;
                Ok(text)
            }
            _ => Err(self.bad("a quoted string")),
        }
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.skip();
        for (name, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.bad("True or False"))
    }

    /// Parses a shape: `()`, `(3,)`, `(2, 3)`.
    fn shape(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut shape = Vec::new();
        while !self.take(')') {
            if shape.len() == MAX_DIMENSIONS {
                return Err(format!("has more than {MAX_DIMENSIONS} dimensions"));
            }
            self.skip();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = self.rest.split_at(digits);
            let size = number.parse().map_err(|_| self.bad("a dimension"))?;
            // Python 2 wrote an L after some numbers.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            shape.push(size);
            if !self.take(',') {
                self.expect(')')?;
                // In Python, (3) is a number and not a tuple.
                if shape.len() == 1 {
                    return Err("has a header with a number in brackets where a shape is needed".into());
                }
                break;
            }
        }
        Ok(shape)
    }
}

/// The element type of a `descr`, and whether it is big-endian.
fn element(descr: &str) -> Result<(Element, bool), String> {
    let unknown = || format!("has element type `{}`, but f2, f4, f8, i1 to i8, u1 to u8 or b1 is needed", short(descr));
    let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
    let element = match kind {
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        "b1" => Element::Bool,
        "i1" => Element::I8,
        "i2" => Element::I16,
        "i4" => Element::I32,
        "i8" => Element::I64,
        "u1" => Element::U8,
        "u2" => Element::U16,
        "u4" => Element::U32,
        "u8" => Element::U64,
        _ => return Err(unknown()),
    };
    match order {
        "<" => Ok((element, false)),
        ">" => Ok((element, true)),
        "|" if element.bytes() == 1 => Ok((element, false)),
        _ => Err(unknown()),
    }
}

/// Writes floats in version 1.0 of the format, which every numpy reads.
pub(crate) fn write(w: &mut dyn Write, shape: &[usize], data: &[f32]) -> io::Result<()> {
    elements_of(w, "<f4", shape, data, |v| v.to_le_bytes())
}

/// [`write`] for integers, as 64-bit ones.
pub(crate) fn write_ints(w: &mut dyn Write, shape: &[usize], data: &[i64]) -> io::Result<()> {
    elements_of(w, "<i8", shape, data, |v| v.to_le_bytes())
}

fn elements_of<T: Copy, const N: usize>(
    w: &mut dyn Write,
    element: &str,
    shape: &[usize],
    data: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if shape.len() > 1 { dims.trim_end_matches(", ") } else { dims.trim_end() };
    let mut header = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The header is padded so that the elements start at a multiple of 64 bytes, and ends in a line break.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let len = u16::try_from(header.len()).map_err(|_| io::Error::other("has too many dimensions for a .npy file"))?;
    w.write_all(MAGIC)?;
    w.write_all(&[1, 0])?;
    w.write_all(&len.to_le_bytes())?;
    w.write_all(header.as_bytes())?;
    for chunk in data.chunks(1 << 12) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|&v| bytes(v)).collect();
        w.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 1.0 with this header.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<HostArray, String> {
        read(&mut &bytes[..], bytes.len() as u64, u64::MAX)
    }

    fn of(descr: &str, shape: &str, data: &[u8]) -> Result<HostArray, String> {
        decode(&file(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data))
    }

    #[test]
    fn every_element_type_in_both_orders() {
        let floats = |a: HostArray| match a.data {
            HostData::Float(v) => v,
            HostData::Int(v) => panic!("{v:?}"),
        };
        let ints = |a: HostArray| match a.data {
            HostData::Int(v) => v,
            HostData::Float(v) => panic!("{v:?}"),
        };
        assert_eq!(floats(of("<f4", "(2,)", &[0, 0, 128, 63, 0, 0, 0, 192]).unwrap()), [1.0, -2.0]);
        assert_eq!(floats(of(">f4", "(2,)", &[63, 128, 0, 0, 192, 0, 0, 0]).unwrap()), [1.0, -2.0]);
        assert_eq!(floats(of("<f2", "(1,)", &[0, 0x3e]).unwrap()), [1.5]);
        assert_eq!(floats(of(">f8", "(1,)", &1.5f64.to_be_bytes()).unwrap()), [1.5]);
        assert_eq!(ints(of("|b1", "(2,)", &[1, 0]).unwrap()), [1, 0]);
        assert_eq!(ints(of("|i1", "(2,)", &[255, 1]).unwrap()), [-1, 1]);
        assert_eq!(ints(of("|u1", "(2,)", &[255, 1]).unwrap()), [255, 1]);
        assert_eq!(ints(of("<i2", "(1,)", &[254, 255]).unwrap()), [-2]);
        assert_eq!(ints(of(">u2", "(1,)", &[1, 2]).unwrap()), [258]);
        assert_eq!(ints(of("<i4", "(1,)", &(-7i32).to_le_bytes()).unwrap()), [-7]);
        assert_eq!(ints(of(">u4", "(1,)", &u32::MAX.to_be_bytes()).unwrap()), [i64::from(u32::MAX)]);
        assert_eq!(ints(of(">i8", "(1,)", &i64::MIN.to_be_bytes()).unwrap()), [i64::MIN]);
        assert_eq!(ints(of("<u8", "(1,)", &7u64.to_le_bytes()).unwrap()), [7]);
        assert!(of("<u8", "(1,)", &u64::MAX.to_le_bytes()).unwrap_err().contains("18446744073709551615"));
        assert!(of("|b1", "(1,)", &[2]).unwrap_err().contains("False or True"));
        for bad in ["<c8", "|O", "<U3", "f4", "<f16", "=f4", "|f4", "", "<", "了"] {
            assert!(of(bad, "(1,)", &[0; 8]).unwrap_err().contains("element type"), "{bad}");
        }
    }

    #[test]
    fn shapes_and_orders() {
        let shape = |text| of("|u1", text, &[1, 2, 3, 4, 5, 6]).map(|a| a.shape);
        assert_eq!(shape("(6,)").unwrap(), [6]);
        assert_eq!(shape("(2, 3)").unwrap(), [2, 3]);
        assert_eq!(shape("(2L, 3L,)").unwrap(), [2, 3]);
        assert_eq!(of("|u1", "()", &[9]).unwrap(), HostArray { shape: vec![], data: HostData::Int(vec![9]) });
        assert_eq!(of("|u1", "(0, 3)", &[]).unwrap().shape, [0, 3]);
        for bad in ["(6)", "6", "(2, -3)", "(2 3)", "(2, 3", "[2, 3]", "(2, (3,))", "(,)", "(1e1,)", "('6',)"] {
            assert!(shape(bad).is_err(), "{bad}");
        }
        let fortran = "{\"shape\": (2, 3, 2), \"fortran_order\": True, \"descr\": \"|u1\"}";
        let a = decode(&file(fortran, &[0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11])).unwrap();
        assert_eq!(a.data, HostData::Int((0..12).collect()));
    }

    /// Headers that would take seconds, gigabytes or the whole stack if their numbers were trusted.
    #[test]
    fn headers_that_attack_are_refused_at_once() {
        for open in ["[", "(", "{", "'", "{'descr':", "{'descr': [", "{'shape': (", "{'shape': ((", "{'descr': [("] {
            for n in [1, 20, 107, 5000, 60_000 / open.len()] {
                let e = decode(&file(&open.repeat(n), &[])).unwrap_err();
                assert!(e.len() < 1000, "{e}");
            }
        }
        let header = |descr, order, shape| format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}");
        for bad in [
            header("'<f4'", "False", "(4294967296, 4294967296)"),
            header("'<f4'", "False", "(4611686018427387904,)"),
            header("'<f8'", "True", "(0, 18446744073709551616)"),
            header("'<f4'", "False", "(4294967295,)"),
            header("'<f4'", "False", &format!("({})", "1,".repeat(33))),
            header("'<f4'", "False", "(1,), 'shape': (1,)"),
            header("'<f4'", "False", "(1,), 'more': 1"),
            header("'<f4'", "0", "(1,)"),
            header("'<\\x66\\x34'", "False", "(1,)"),
            header("[('x', '<f4')]", "False", "(1,)"),
            "{'descr': '<f4', 'shape': (1,)}".into(),
            "{'fortran_order': False, 'shape': (1,)}".into(),
            "{'descr': '<f4', 'fortran_order': False}".into(),
            "{}".into(),
            String::new(),
            header("'<f4'", "False", "(1,)") + "x",
        ] {
            let e = decode(&file(&bad, &[0; 4])).unwrap_err();
            assert!(e.len() < 1000, "{bad}: {e}");
        }
        // Twelve bytes that announce a header of 4 GiB.
        let e = decode(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap_err();
        assert!(e.contains("4294967295"), "{e}");
        // Missing data, and more data than the header states.
        assert!(of("<f4", "(2,)", &[0; 7]).unwrap_err().contains("8 bytes, but 7"));
        assert!(of("<f4", "(2,)", &[0; 9]).unwrap_err().contains("8 bytes, but 9"));
        // More memory than the limit.
        let small = file("{'descr': '|u1', 'fortran_order': False, 'shape': (9,)}", &[0; 9]);
        assert!(read(&mut &small[..], small.len() as u64, 71).unwrap_err().contains("72"));
        for len in 0..small.len() {
            assert!(decode(&small[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for shape in [&[][..], &[1], &[6], &[2, 3], &[1, 2, 3, 1]] {
            let data: Vec<f32> = (0..shape.iter().product()).map(|v: usize| v as f32 - 0.5).collect();
            let mut bytes = Vec::new();
            write(&mut bytes, shape, &data).unwrap();
            assert_eq!((bytes.len() - 4 * data.len()) % 64, 0);
            assert_eq!(decode(&bytes).unwrap(), HostArray { shape: shape.to_vec(), data: HostData::Float(data) });
        }
    }
}
