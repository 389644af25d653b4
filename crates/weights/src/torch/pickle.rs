//! A machine for pickles that executes nothing: every value is data, and calls of functions that a state dict needs
//! become what they would return.
//!
//! Source: Python's `pickletools`, protocols 0 to 5.

use super::Wrong;
use crate::files::short;
use std::collections::{BTreeSet, HashMap};

/// Limits on the numbers of values, of elements of all lists and dictionaries, of the depth of the stack and of values
/// that are remembered: together they take less than 64 MiB.
const MAX_VALUES: usize = 1 << 20;
const MAX_ITEMS: usize = 1 << 20;
const MAX_STACK: usize = 1 << 19;
const MAX_MEMO: usize = 1 << 19;
/// Limit on the bytes of a pickle.
const MAX_PICKLE: usize = 1 << 30;
/// Limit on the names of refused functions that an error has.
const MAX_REFUSED: usize = 64;

/// A value, by its index.
pub(super) type Id = u32;

/// A value. Texts stay in the pickle.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A value that no weight depends on: a float, bytes, a large integer, or what a known function makes of such.
    Other,
    Text {
        at: u32,
        len: u32,
    },
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function or a class: its module and its name, two texts.
    Global(Id, Id),
    /// An object of a class, with its attributes.
    Instance {
        class: Id,
        state: Option<Id>,
    },
    /// The description of a storage, a tuple.
    Storage(Id),
    /// A tensor, from the arguments of the function that makes it.
    Tensor(Rebuild, Id),
}

/// The function that makes a tensor: each takes more arguments than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// Storage, offset, size, stride.
    V1,
    /// And whether it needs a gradient, hooks, metadata.
    V2,
    /// And before the metadata the type.
    V3,
}

/// What a pickle made.
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    pub(super) root: Id,
    /// Where the next pickle begins.
    pub(super) end: usize,
}

/// Functions and classes whose results no weight depends on.
pub(super) const HARMLESS: [&str; 41] = [
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "collections.Counter",
    "collections.deque",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "torch.Size",
    "torch.device",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "uuid.UUID",
];

impl<'a> Pickle<'a> {
    /// Reads the first pickle of these bytes.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Wrong> {
        if bytes.len() > MAX_PICKLE {
            return Err(Wrong::File(format!(
                "its pickle has {} bytes, but at most {MAX_PICKLE} are read",
                bytes.len()
            )));
        }
        let mut machine = Machine::new(bytes);
        let root = loop {
            let at = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => break root,
                Err(message) => {
                    return Err(Wrong::File(format!("its pickle is damaged or not supported: {message}, byte {at}")));
                }
            }
        };
        if !machine.refused.is_empty() {
            return Err(Wrong::Calls(machine.refused.into_iter().collect()));
        }
        Ok(Self { bytes, values: machine.values, root, end: machine.at })
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// A text, if it is one.
    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        text(self.bytes, self.get(id))
    }

    /// The name of a function or class with its module, `torch.FloatStorage`.
    pub(super) fn global(&self, id: Id) -> Option<String> {
        global(self.bytes, &self.values, id)
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(v) => Some(v),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(v) => usize::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The descriptions of all storages.
    pub(super) fn storages(&self) -> impl Iterator<Item = &[Id]> {
        self.values.iter().filter_map(|v| if let Value::Storage(id) = v { self.tuple(*id) } else { None })
    }

    /// The entry of a dictionary with this key, the last one if there are several.
    pub(super) fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        match self.get(dict) {
            Value::Dict(v) => v.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, v)| *v),
            _ => None,
        }
    }
}

fn text<'a>(bytes: &'a [u8], value: &Value) -> Option<&'a str> {
    match *value {
        Value::Text { at, len } => str::from_utf8(&bytes[at as usize..][..len as usize]).ok(),
        _ => None,
    }
}

fn global(bytes: &[u8], values: &[Value], id: Id) -> Option<String> {
    let Value::Global(module, name) = values[id as usize] else { return None };
    let part = |id: Id| text(bytes, &values[id as usize]);
    // Python 2 had other names for these.
    let module = match part(module)? {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    };
    Some(format!("{module}.{}", part(name)?))
}

/// Small whole numbers are made once.
const SMALL: i64 = 256;
const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;
const OTHER: Id = 3;
const EMPTY_TUPLE: Id = 4;
const FIRST_SMALL: Id = 5;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    items: usize,
    stack: Vec<Id>,
    marks: Vec<u32>,
    memo: HashMap<u32, Id>,
    refused: BTreeSet<String>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut values =
            vec![Value::None, Value::Bool(false), Value::Bool(true), Value::Other, Value::Tuple(Vec::new())];
        values.extend((0..SMALL).map(Value::Int));
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Self { bytes, at: 0, values, items: 0, stack, marks, memo, refused: BTreeSet::new() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        if count > rest.len() {
            return Err("ends too early".into());
        }
        self.at += count;
        Ok(&rest[..count])
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("so many were taken"))
    }

    fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.number::<N>()?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "ends too early".into())
    }

    /// The bytes up to the end of the line.
    fn line(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or("ends too early")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn decimal(&mut self) -> Result<u32, String> {
        let line = self.line()?;
        str::from_utf8(line).ok().and_then(|t| t.trim().parse().ok()).ok_or_else(|| "has a number that is none".into())
    }

    fn make(&mut self, value: Value) -> Result<Id, String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("makes more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        Ok((self.values.len() - 1) as Id)
    }

    fn put(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() == MAX_STACK {
            return Err(format!("puts more than {MAX_STACK} values on its stack"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        let id = self.make(value)?;
        self.put(id)
    }

    fn int(&mut self, v: i64) -> Result<(), String> {
        if (0..SMALL).contains(&v) { self.put(FIRST_SMALL + v as Id) } else { self.push(Value::Int(v)) }
    }

    /// Makes the text of these bytes, which are a part of the pickle.
    fn make_text(&mut self, part: &'a [u8]) -> Result<Id, String> {
        let at = part.as_ptr().addr() - self.bytes.as_ptr().addr();
        self.make(Value::Text { at: at as u32, len: part.len() as u32 })
    }

    fn push_text(&mut self, part: &'a [u8]) -> Result<(), String> {
        let id = self.make_text(part)?;
        self.put(id)
    }

    /// Takes a value from the stack, above the last mark.
    fn pop(&mut self) -> Result<Id, String> {
        let base = self.marks.last().map_or(0, |&m| m as usize);
        if self.stack.len() <= base {
            return Err("takes a value from an empty stack".into());
        }
        Ok(self.stack.pop().expect("not empty"))
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "needs a value on its stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("has no mark on its stack")?;
        Ok(self.stack.split_off(mark as usize))
    }

    /// Counts elements that a list or dictionary gets.
    fn count(&mut self, more: usize) -> Result<(), String> {
        self.items += more;
        if self.items > MAX_ITEMS { Err(format!("has more than {MAX_ITEMS} elements in its lists")) } else { Ok(()) }
    }

    fn pairs(&mut self, flat: &[Id]) -> Result<Vec<(Id, Id)>, String> {
        self.count(flat.len())?;
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("has a key without a value".into());
        }
        Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect())
    }

    fn collect(&mut self, make: fn(Vec<Id>) -> Value) -> Result<(), String> {
        let mut items = self.pop_mark()?;
        self.count(items.len())?;
        items.shrink_to_fit();
        if items.is_empty() && matches!(make(Vec::new()), Value::Tuple(_)) {
            return self.put(EMPTY_TUPLE);
        }
        self.push(make(items))
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), String> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.count(count)?;
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, more: &[Id]) -> Result<(), String> {
        self.count(more.len())?;
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(v) | Value::Set(v) => v.extend_from_slice(more),
            Value::Other | Value::Instance { .. } => {}
            _ => return Err("appends to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, flat: &[Id]) -> Result<(), String> {
        let mut pairs = self.pairs(flat)?;
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(v) => v.append(&mut pairs),
            // A dictionary of a class of its own, whose class says what it is.
            Value::Other | Value::Instance { .. } => {}
            _ => return Err("sets an element of what is no dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.len() == MAX_MEMO && !self.memo.contains_key(&key) {
            return Err(format!("remembers more than {MAX_MEMO} values"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or("recalls what it has not remembered")?;
        self.put(id)
    }

    fn refuse(&mut self, name: String) -> Id {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(short(&name));
        }
        OTHER
    }

    fn arguments(&self, id: Id) -> Result<&[Id], String> {
        match &self.values[id as usize] {
            Value::Tuple(v) => Ok(v),
            _ => Err("calls with what is no tuple of arguments".into()),
        }
    }

    /// The result of a call.
    fn call(&mut self, function: Id, arguments: Id) -> Result<Id, String> {
        let Some(name) = global(self.bytes, &self.values, function) else {
            return match self.values[function as usize] {
                Value::Other => Ok(OTHER),
                _ => Err("calls what is no function".into()),
            };
        };
        let own = self.arguments(arguments)?;
        let tensor = |id: Option<&Id>| match id {
            Some(&id) if matches!(self.values[id as usize], Value::Tensor(..)) => Ok(id),
            _ => Err(format!("calls {name} without a tensor")),
        };
        match &*name {
            "torch._utils._rebuild_tensor" => self.make(Value::Tensor(Rebuild::V1, arguments)),
            "torch._utils._rebuild_tensor_v2" => self.make(Value::Tensor(Rebuild::V2, arguments)),
            "torch._utils._rebuild_tensor_v3" => self.make(Value::Tensor(Rebuild::V3, arguments)),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => tensor(own.first()),
            "torch._tensor._rebuild_from_type_v2" | "torch._tensor._rebuild_from_type" => {
                let &[function, class, inner, ..] = own else { return Err(format!("calls {name} with too little")) };
                let class = global(self.bytes, &self.values, class).unwrap_or_else(|| "no class".into());
                let known = ["torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"];
                if !known.contains(&&*class) {
                    return Ok(self.refuse(class));
                }
                match global(self.bytes, &self.values, function) {
                    // So that such calls do not nest.
                    Some(f) if f.starts_with("torch._utils._rebuild_") => self.call(function, inner),
                    Some(f) => Ok(self.refuse(f)),
                    None => Err(format!("calls {name} without a function")),
                }
            }
            "torch.jit._pickle.restore_type_tag" => {
                own.first().copied().ok_or_else(|| format!("calls {name} without a value"))
            }
            "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" => {
                let items = match own.last().map(|&id| &self.values[id as usize]) {
                    Some(Value::List(v)) => v.clone(),
                    _ => Vec::new(),
                };
                let mut flat = Vec::with_capacity(2 * items.len());
                for pair in items {
                    match &self.values[pair as usize] {
                        Value::Tuple(v) | Value::List(v) if v.len() == 2 => flat.extend_from_slice(v),
                        _ => return Err(format!("calls {name} with what is no list of pairs")),
                    }
                }
                let pairs = self.pairs(&flat)?;
                self.make(Value::Dict(pairs))
            }
            "builtins.set" | "builtins.frozenset" => {
                let items = match own.first().map(|&id| &self.values[id as usize]) {
                    Some(Value::List(v) | Value::Tuple(v)) => v.clone(),
                    _ => Vec::new(),
                };
                self.count(items.len())?;
                self.make(Value::Set(items))
            }
            "copyreg._reconstructor" | "copyreg.__newobj__" => match own.first() {
                Some(&class) => self.instance(class),
                None => Err(format!("calls {name} without a class")),
            },
            _ if HARMLESS.contains(&&*name) => Ok(OTHER),
            _ => Ok(self.refuse(name)),
        }
    }

    /// An object of a class.
    fn instance(&mut self, class: Id) -> Result<Id, String> {
        match global(self.bytes, &self.values, class).as_deref() {
            Some("collections.OrderedDict" | "collections.defaultdict" | "builtins.dict") => {
                self.make(Value::Dict(Vec::new()))
            }
            Some(_) => self.make(Value::Instance { class, state: None }),
            None => Err("makes an object of what is no class".into()),
        }
    }

    fn build(&mut self, state: Id) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Instance { state: own, .. } => *own = Some(state),
            // Attributes that the values of weights do not depend on.
            Value::Dict(_) | Value::Other | Value::Tensor(..) => {}
            _ => return Err("sets attributes of what has none".into()),
        }
        Ok(())
    }

    /// What a persistent id stands for.
    fn persistent(&mut self, id: Id) -> Result<Id, String> {
        let fields = self.arguments(id)?;
        match fields.first().and_then(|&kind| text(self.bytes, &self.values[kind as usize])) {
            Some("storage") => self.make(Value::Storage(id)),
            // A class, with its source.
            Some("module") if fields.len() > 1 => Ok(fields[1]),
            _ => Err("has a persistent id that is no storage".into()),
        }
    }

    fn long(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > 8 {
            return self.put(OTHER);
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.int(i64::from_le_bytes(wide))
    }

    /// Executes one instruction; the result, at the end.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let [op] = self.number()?;
        match op {
            b'.' => return self.pop().map(Some),
            0x80 => match self.number()? {
                [0..=5] => {}
                [n] => return Err(format!("has protocol {n}")),
            },
            0x95 => {
                self.take(8)?;
            }
            b'(' => {
                if self.marks.len() == MAX_STACK {
                    return Err(format!("has more than {MAX_STACK} marks"));
                }
                self.marks.push(self.stack.len() as u32);
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.put(top)?;
            }
            b'N' => self.put(NONE)?,
            0x88 => self.put(TRUE)?,
            0x89 => self.put(FALSE)?,
            b'F' => {
                self.line()?;
                self.put(OTHER)?;
            }
            b'G' => {
                self.take(8)?;
                self.put(OTHER)?;
            }
            b'I' | b'L' => match self.line()? {
                b"00" if op == b'I' => self.put(FALSE)?,
                b"01" if op == b'I' => self.put(TRUE)?,
                line => {
                    let text = str::from_utf8(line).map_err(|_| "has a number that is none")?.trim();
                    match text.trim_end_matches('L').parse() {
                        Ok(v) => self.int(v)?,
                        Err(_) => self.put(OTHER)?,
                    }
                }
            },
            b'J' => {
                let v = i32::from_le_bytes(self.number()?);
                self.int(v.into())?;
            }
            b'K' => {
                let [v] = self.number()?;
                self.int(v.into())?;
            }
            b'M' => {
                let v = u16::from_le_bytes(self.number()?);
                self.int(v.into())?;
            }
            0x8a => {
                let len = self.length::<1>()?;
                let bytes = self.take(len)?;
                self.long(bytes)?;
            }
            0x8b => {
                let len = self.length::<4>()?;
                let bytes = self.take(len)?;
                self.long(bytes)?;
            }
            b'S' => {
                let line = self.line()?.trim_ascii();
                match line {
                    [q @ (b'\'' | b'"'), inner @ .., p] if q == p && !inner.contains(&b'\\') => {
                        self.push_text(inner)?
                    }
                    _ => self.put(OTHER)?,
                }
            }
            b'V' => {
                let line = self.line()?;
                if line.contains(&b'\\') { self.put(OTHER)? } else { self.push_text(line)? }
            }
            b'T' | b'X' => {
                let len = self.length::<4>()?;
                let part = self.take(len)?;
                self.push_text(part)?;
            }
            b'U' | 0x8c => {
                let len = self.length::<1>()?;
                let part = self.take(len)?;
                self.push_text(part)?;
            }
            0x8d => {
                let len = self.length::<8>()?;
                let part = self.take(len)?;
                self.push_text(part)?;
            }
            b'B' => {
                let len = self.length::<4>()?;
                self.take(len)?;
                self.put(OTHER)?;
            }
            b'C' => {
                let len = self.length::<1>()?;
                self.take(len)?;
                self.put(OTHER)?;
            }
            0x8e | 0x96 => {
                let len = self.length::<8>()?;
                self.take(len)?;
                self.put(OTHER)?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b')' => self.put(EMPTY_TUPLE)?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x8f => self.push(Value::Set(Vec::new()))?,
            b'l' => self.collect(Value::List)?,
            b't' => self.collect(Value::Tuple)?,
            0x91 => self.collect(Value::Set)?,
            b'd' => {
                let flat = self.pop_mark()?;
                let pairs = self.pairs(&flat)?;
                self.push(Value::Dict(pairs))?;
            }
            0x85..=0x87 => self.tuple_of(usize::from(op - 0x84))?,
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let flat = self.pop_mark()?;
                self.set_items(&flat)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let (module, name) = (self.make_text(module)?, self.make_text(name)?);
                self.push(Value::Global(module, name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let is_text = |id: Id| matches!(self.values[id as usize], Value::Text { .. });
                if !is_text(module) || !is_text(name) {
                    return Err("has a function whose name is no text".into());
                }
                self.push(Value::Global(module, name))?;
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.call(function, arguments)?;
                self.put(made)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let (module, name) = (self.make_text(module)?, self.make_text(name)?);
                let class = self.make(Value::Global(module, name))?;
                let arguments = self.pop_mark()?;
                self.count(arguments.len())?;
                let arguments = self.make(Value::Tuple(arguments))?;
                let made = self.call(class, arguments)?;
                self.put(made)?;
            }
            b'o' => {
                let mut arguments = self.pop_mark()?;
                if arguments.is_empty() {
                    return Err("makes an object without a class".into());
                }
                let class = arguments.remove(0);
                self.count(arguments.len())?;
                let arguments = self.make(Value::Tuple(arguments))?;
                let made = self.call(class, arguments)?;
                self.put(made)?;
            }
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                let made = self.instance(class)?;
                self.put(made)?;
            }
            0x92 => {
                let (_, _, class) = (self.pop()?, self.pop()?, self.pop()?);
                let made = self.instance(class)?;
                self.put(made)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let made = self.persistent(id)?;
                self.put(made)?;
            }
            b'p' => {
                let key = self.decimal()?;
                self.remember(key)?;
            }
            b'q' => {
                let [key] = self.number()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.number()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'g' => {
                let key = self.decimal()?;
                self.recall(key)?;
            }
            b'h' => {
                let [key] = self.number()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.number()?);
                self.recall(key)?;
            }
            other => return Err(format!("has the instruction {other:#04x}")),
        }
        Ok(None)
    }
}
