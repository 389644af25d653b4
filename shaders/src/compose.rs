//! Composition: a kernel's source, its imports and a set of constants become one WGSL module.
//!
//! | directive | meaning |
//! |---|---|
//! | `#import NAME` | the text of the snippet NAME, or of the snippet that the constant NAME gives; once per module |
//! | `#if NAME` … `#else` … `#end` | one of two texts, chosen by a `bool` constant |
//! | `#unroll v COUNT` … `#end` | the text COUNT times, `$v` replaced by 0, 1, …; COUNT is a number or a constant |
//! | `#subgroups` | the following code calls subgroup functions |
//!
//! Constants become `const` or `alias` declarations at the head of the module. They are used instead of WGSL's
//! `override`, which can neither size a private array nor choose a type.

use arrayvec::ArrayVec;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The value of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// `const NAME: u32`
    U32(u32),
    /// `const NAME: f32`, as bits so that variants can be compared and hashed.
    F32(u32),
    /// `const NAME: bool`
    Bool(bool),
    /// `alias NAME = f32`
    TypeF32,
    /// `alias NAME = f16`, and adds `enable f16;`
    TypeF16,
    /// `alias NAME = u32`
    TypeU32,
    /// No declaration: the name of the snippet that `#import NAME` includes.
    Snippet(&'static str),
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}
impl From<f32> for Value {
    fn from(v: f32) -> Self {
        Self::F32(v.to_bits())
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

/// The constants of a variant by name, stored inline, because looking up a variant must not allocate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Defines(ArrayVec<(&'static str, Value), 56>);

impl Defines {
    /// No constants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a constant.
    ///
    /// # Panics
    /// If there are more than 56, which no kernel needs.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|&(_, v)| v)
    }
}

/// The source of a line of a composed module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The stem of the file in `wgsl/` or of the snippet; empty for generated lines.
    pub file: &'static str,
    /// The line number, from 1.
    pub line: u32,
}

/// The compiler for which a module is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// naga, which allows subgroup functions without `enable subgroups;` and rejects that line.
    Naga,
    /// A browser, which requires that line.
    Browser,
}

/// A composed module.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The WGSL text for naga.
    pub source: String,
    /// Origin of each line of `source`.
    pub lines: Vec<Origin>,
    /// Whether it calls subgroup functions, which the device must support.
    pub subgroups: bool,
}

impl Composed {
    /// The WGSL text for a target.
    pub fn wgsl(&self, target: Target) -> Cow<'_, str> {
        match target {
            Target::Browser if self.subgroups => format!("enable subgroups;\n{}", self.source).into(),
            _ => (&self.source).into(),
        }
    }
}

/// An error in the source of a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComposeError {
    /// `#import` names a snippet that does not exist.
    #[error("{file}:{line}: no snippet named `{name}`")]
    UnknownImport {
        /// File.
        file: &'static str,
        /// Line.
        line: u32,
        /// The name.
        name: String,
    },
    /// The constant of a directive is missing or has the wrong type.
    #[error("{file}:{line}: `{name}` is not a constant of the kind this directive needs")]
    BadConstant {
        /// File.
        file: &'static str,
        /// Line.
        line: u32,
        /// The name.
        name: String,
    },
    /// An unknown or malformed directive.
    #[error("{file}:{line}: bad directive `{text}`")]
    BadDirective {
        /// File.
        file: &'static str,
        /// Line.
        line: u32,
        /// The line's text.
        text: String,
    },
    /// `#end` without a block, or a block without `#end`.
    #[error("{file}:{line}: unbalanced block")]
    Unbalanced {
        /// File.
        file: &'static str,
        /// Line.
        line: u32,
    },
}

/// Composes `source` (called `file` in errors) with the constants `defines`; `imports` gives the text of a snippet.
///
/// # Errors
/// [`ComposeError`] if a directive is invalid.
pub fn compose(
    file: &'static str,
    source: &'static str,
    defines: &Defines,
    imports: fn(&str) -> Option<(&'static str, &'static str)>,
) -> Result<Composed, ComposeError> {
    let out = Composed { source: String::new(), lines: Vec::new(), subgroups: false };
    let mut c = Composer { defines, imports, imported: Vec::new(), out };
    if defines.0.iter().any(|(_, v)| *v == Value::TypeF16) {
        c.emit("enable f16;", Origin { file: "", line: 0 });
    }
    for (name, value) in &defines.0 {
        let line = match value {
            Value::U32(v) => format!("const {name}: u32 = {v}u;"),
            // Written as a number and not as bits, so that NaN and infinity, which WGSL forbids in constants, do not
            // compile.
            Value::F32(v) => format!("const {name}: f32 = {:?}f;", f32::from_bits(*v)),
            Value::Bool(v) => format!("const {name}: bool = {v};"),
            Value::TypeF32 => format!("alias {name} = f32;"),
            Value::TypeF16 => format!("alias {name} = f16;"),
            Value::TypeU32 => format!("alias {name} = u32;"),
            Value::Snippet(_) => continue,
        };
        c.emit(&line, Origin { file: "", line: 0 });
    }
    c.file(file, source)?;
    Ok(c.out)
}

/// Adds to `source` a limit on the loop iterations of an invocation, summed over all its loops. Some software
/// rasterisers have such a limit, and tests imitate it with a small one.
pub(crate) fn end_loops(source: &str, limit: u32) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    for line in source.lines() {
        let code = line.find("//").unwrap_or(line.len());
        let mut rest = &line[..code];
        while let Some(at) = rest.find("for (") {
            let head = at + rest[at..].find('{').map_or(rest.len() - at, |n| n + 1);
            out.push_str(&rest[..head]);
            out.push_str(" if loops_end() { break; }");
            rest = &rest[head..];
        }
        out.push_str(rest);
        out.push_str(&line[code..]);
        out.push('\n');
    }
    let _ = writeln!(out, "var<private> loops_run: u32;");
    let _ = writeln!(out, "fn loops_end() -> bool {{ loops_run += 1u; return loops_run > {limit}u; }}");
    out
}

struct Composer<'a> {
    defines: &'a Defines,
    imports: fn(&str) -> Option<(&'static str, &'static str)>,
    imported: Vec<String>,
    out: Composed,
}

type Lines<'a> = &'a [(u32, String)];

impl Composer<'_> {
    fn emit(&mut self, text: &str, origin: Origin) {
        let _ = writeln!(self.out.source, "{text}");
        self.out.lines.push(origin);
    }

    fn file(&mut self, file: &'static str, source: &str) -> Result<(), ComposeError> {
        let lines: Vec<_> = (1..).zip(source.lines().map(str::to_owned)).collect();
        self.block(file, &lines)
    }

    fn block(&mut self, file: &'static str, lines: Lines<'_>) -> Result<(), ComposeError> {
        let mut i = 0;
        while i < lines.len() {
            let (line, text) = &lines[i];
            let line = *line;
            let mut words = text.split_whitespace();
            let bad = || ComposeError::BadDirective { file, line, text: text.clone() };
            let constant = |name: &str| ComposeError::BadConstant { file, line, name: name.into() };
            match words.next() {
                Some("#import") => {
                    let name = words.next().ok_or_else(bad)?;
                    let name = match self.defines.get(name) {
                        Some(Value::Snippet(chosen)) => chosen,
                        _ => name,
                    };
                    if !self.imported.iter().any(|n| n == name) {
                        self.imported.push(name.into());
                        let (origin, source) = (self.imports)(name).ok_or_else(|| ComposeError::UnknownImport {
                            file,
                            line,
                            name: name.into(),
                        })?;
                        self.file(origin, source)?;
                    }
                    i += 1;
                }
                Some("#if") => {
                    let name = words.next().ok_or_else(bad)?;
                    let Some(Value::Bool(on)) = self.defines.get(name) else {
                        return Err(constant(name));
                    };
                    let (middle, end) = block_end(file, lines, i)?;
                    let (yes, no) = (i + 1..middle.unwrap_or(end), middle.map_or(end, |m| m + 1)..end);
                    self.block(file, &lines[if on { yes } else { no }])?;
                    i = end + 1;
                }
                Some("#unroll") => {
                    let (Some(var), Some(count)) = (words.next(), words.next()) else {
                        return Err(bad());
                    };
                    let count = match (count.parse(), self.defines.get(count)) {
                        (Ok(n), _) => n,
                        (_, Some(Value::U32(n))) => n,
                        _ => return Err(constant(count)),
                    };
                    let (middle, end) = block_end(file, lines, i)?;
                    if middle.is_some() {
                        return Err(ComposeError::Unbalanced { file, line });
                    }
                    let name = format!("${var}");
                    for n in 0..count {
                        let n = n.to_string();
                        let body: Vec<_> = lines[i + 1..end].iter().map(|(l, t)| (*l, t.replace(&name, &n))).collect();
                        self.block(file, &body)?;
                    }
                    i = end + 1;
                }
                Some("#subgroups") => {
                    self.out.subgroups = true;
                    i += 1;
                }
                Some("#else" | "#end") => return Err(ComposeError::Unbalanced { file, line }),
                Some(w) if w.starts_with('#') => return Err(bad()),
                _ => {
                    self.emit(text, Origin { file, line });
                    i += 1;
                }
            }
        }
        Ok(())
    }
}

/// The indices of `#else` (if there is one) and `#end` for the block that starts at `start`.
fn block_end(file: &'static str, lines: Lines<'_>, start: usize) -> Result<(Option<usize>, usize), ComposeError> {
    let mut depth = 0;
    let mut middle = None;
    for (i, (_, text)) in lines.iter().enumerate().skip(start) {
        match text.split_whitespace().next() {
            Some("#if" | "#unroll") => depth += 1,
            Some("#else") if depth == 1 => middle = Some(i),
            Some("#end") => {
                depth -= 1;
                if depth == 0 {
                    return Ok((middle, i));
                }
            }
            _ => {}
        }
    }
    Err(ComposeError::Unbalanced { file, line: lines[start].0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(name: &str) -> Option<(&'static str, &'static str)> {
        (name == "activations").then_some(("activations", "// first\nfn f() {}"))
    }

    fn run(source: &'static str, defines: &Defines) -> Result<String, ComposeError> {
        compose("t", source, defines, imports).map(|c| c.source)
    }

    #[test]
    fn constants_types_and_f16() {
        let d = Defines::new().with("N", 3).with("A", 0.5).with("T", Value::TypeF16).with("B", true);
        assert_eq!(
            run("x", &d).unwrap(),
            "enable f16;\nconst N: u32 = 3u;\nconst A: f32 = 0.5f;\nalias T = f16;\nconst B: bool = true;\nx\n"
        );
    }

    #[test]
    fn imports_once_with_origins() {
        let c = compose("t", "#import activations\na\n#import activations\nb", &Defines::new(), imports).unwrap();
        assert_eq!(c.source, "// first\nfn f() {}\na\nb\n");
        let origins: Vec<_> = c.lines.iter().map(|o| (o.file, o.line)).collect();
        assert_eq!(origins, [("activations", 1), ("activations", 2), ("t", 2), ("t", 4)]);
    }

    #[test]
    fn a_constant_chooses_a_snippet() {
        let d = Defines::new().with("CELL", Value::Snippet("activations"));
        assert_eq!(run("#import CELL\na", &d).unwrap(), "// first\nfn f() {}\na\n");
        let none = Defines::new().with("CELL", Value::Snippet("nothing"));
        assert_eq!(run("#import CELL", &none).unwrap_err().to_string(), "t:1: no snippet named `nothing`");
    }

    #[test]
    fn unroll_nests_and_counts_by_constant() {
        let d = Defines::new().with("N", 2);
        assert_eq!(
            run("#unroll i N\n#unroll j 2\nv$i_$j = $ju;\n#end\n#end", &d).unwrap(),
            "const N: u32 = 2u;\nv0_0 = 0u;\nv0_1 = 1u;\nv1_0 = 0u;\nv1_1 = 1u;\n"
        );
    }

    #[test]
    fn conditions() {
        let source = "#if A\nyes\n#else\nno\n#end";
        assert!(run(source, &Defines::new().with("A", true)).unwrap().ends_with("yes\n"));
        assert!(run(source, &Defines::new().with("A", false)).unwrap().ends_with("no\n"));
    }

    #[test]
    fn subgroups_are_enabled_where_they_are_used_and_for_browsers_only() {
        let d = Defines::new().with("T", Value::TypeF16).with("A", true);
        let c = compose("t", "#if A\n#subgroups\nx\n#end", &d, imports).unwrap();
        assert!(c.subgroups);
        assert_eq!(c.source, "enable f16;\nalias T = f16;\nconst A: bool = true;\nx\n");
        assert_eq!(c.wgsl(Target::Naga), c.source);
        assert_eq!(c.wgsl(Target::Browser), format!("enable subgroups;\n{}", c.source));
        let off = compose("t", "#if A\n#subgroups\n#end\nx", &Defines::new().with("A", false), imports).unwrap();
        assert!(!off.subgroups);
        assert_eq!(off.wgsl(Target::Browser), off.source);
    }

    #[test]
    fn loops_end_after_a_number_of_iterations() {
        let source = "// for (a) {\nfor (var i = 0u; i < f(3u); i++) { x(); }\nfor (; j < n; j++) {\n}";
        let ended = end_loops(source, 9);
        assert!(ended.starts_with(
            "// for (a) {\nfor (var i = 0u; i < f(3u); i++) { if loops_end() { break; } x(); }\n\
             for (; j < n; j++) { if loops_end() { break; }\n}\n"
        ));
        assert!(ended.contains("loops_run > 9u"));
    }

    #[test]
    fn errors_name_the_place() {
        let none = Defines::new();
        let e = run("a\n#import nothing", &none).unwrap_err();
        assert_eq!(e.to_string(), "t:2: no snippet named `nothing`");
        assert!(matches!(run("#if X\n#end", &none), Err(ComposeError::BadConstant { line: 1, .. })));
        assert!(matches!(run("#unroll i Y\n#end", &none), Err(ComposeError::BadConstant { .. })));
        assert!(matches!(run("#end", &none), Err(ComposeError::Unbalanced { line: 1, .. })));
        assert!(matches!(run("\n#unroll i 2\n", &none), Err(ComposeError::Unbalanced { line: 2, .. })));
        assert!(matches!(run("#frob", &none), Err(ComposeError::BadDirective { .. })));
    }
}
