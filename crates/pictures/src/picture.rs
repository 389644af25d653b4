//! Drawing a model: boxes with what they do, inputs at the top, and lines between them.

use crate::diagram::{Diagram, Item, Kind};
use crate::layout::{Line, Placed, Sizes, place};
use recurve::thousands;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const MARGIN: f64 = 32.0;
/// Height of the title.
const HEADER: f64 = 84.0;
/// Height of the line that says what colours mean.
const LEGEND: f64 = 30.0;
/// Boxes with fewer around them have more room for their texts.
const FEW: usize = 24;
/// Inside a box at its sides.
const PAD: f64 = 14.0;

/// Fill and border colour of a box, and what it is.
fn colours(kind: Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::Input => ("#ffffff", "#4a5568", "input"),
        Kind::Output => ("#eef1f5", "#2d3748", "output"),
        Kind::StateIn => ("#f3ecfb", "#8250c4", "state of a call"),
        Kind::StateOut => ("#e4d7f7", "#6b3fa8", "state of the next call"),
        Kind::Recurrent => ("#fdeedd", "#c26a10", "recurrent"),
        Kind::Product => ("#e6f0fb", "#2b6cb0", "product, convolution"),
        Kind::Embedding => ("#e3f6f5", "#1f8a8a", "embedding"),
        Kind::Other => ("#eaf6ea", "#38803f", "normalization, pooling, …"),
        Kind::Control => ("#fdebec", "#b83a4b", "If, Loop, Scan"),
        Kind::Small => ("#f7f7f7", "#8a8f98", "elementwise, shapes"),
    }
}

/// Colours of the numbers in place of long lines.
const NUMBERS: [&str; 8] = ["#2b6cb0", "#c26a10", "#38803f", "#8250c4", "#b83a4b", "#1f8a8a", "#7a5c1e", "#4a5568"];

fn escape(s: &str) -> String {
    let plain = s.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The width of a text in this size, nearly.
fn width(s: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '|' | '\'' | '!' => 0.28,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | ' ' | '/' | '·' => 0.36,
        'm' | 'w' | 'M' | 'W' | '…' | '→' => 0.9,
        c if c.is_ascii_uppercase() => 0.66,
        c if c.is_ascii() => 0.575,
        _ => 0.95,
    };
    s.chars().map(of).sum::<f64>() * size
}

/// A text that fits: cut at its end, or with `tail` at its beginning, as paths are told apart by their ends.
fn fitting(s: &str, size: f64, room: f64, tail: bool) -> String {
    if width(s, size) <= room {
        return s.into();
    }
    let all: Vec<char> = s.chars().collect();
    let cut = |count: usize| -> String {
        if tail {
            format!("…{}", all[all.len() - count..].iter().collect::<String>())
        } else {
            let text: String = all[..count].iter().collect();
            format!("{}…", text.trim_end_matches([' ', '·', '+']))
        }
    };
    (1..all.len()).rev().map(cut).find(|t| width(t, size) <= room).unwrap_or_default()
}

/// Sizes of a picture's texts and boxes.
struct Style {
    wide: f64,
    title: f64,
    text: f64,
}

impl Style {
    /// Its name, shape and parameters have lines of their own; a small box has one less.
    fn height(&self, item: &Item) -> f64 {
        let lines = 1 + usize::from(!item.name.is_empty()) + usize::from(!item.shape.is_empty() || item.params > 0);
        16.0 + self.title * 1.3 + (lines - 1) as f64 * self.text * 1.5
    }
}

/// The picture as SVG.
pub(crate) fn svg(d: &Diagram) -> String {
    let style = if d.items.len() <= FEW {
        Style { wide: 456.0, title: 18.0, text: 14.0 }
    } else {
        Style { wide: 244.0, title: 14.0, text: 11.5 }
    };
    let boxes: Vec<_> = d.items.iter().map(|i| (style.wide, style.height(i))).collect();
    let placed = place(&Sizes { boxes: &boxes, edges: &d.edges });
    let kinds: BTreeSet<Kind> = d.items.iter().map(|i| i.kind).collect();
    let legend: f64 = kinds.iter().map(|k| legend_width(*k)).sum();
    // What colours mean is said where there are many boxes.
    let explained = d.items.len() > FEW;
    let least = width(&d.title, 22.0).max(width(&d.subtitle, 13.0)).max(if explained { legend } else { 0.0 });
    let wide = placed.width.max(least).ceil() + 2.0 * MARGIN;
    let top = HEADER + if explained { LEGEND } else { 0.0 };
    let high = top + placed.height + MARGIN;
    let mut s = String::new();
    let _ = write!(
        s,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0}" height="{high:.0}" viewBox="0 0 {wide:.0} {high:.0}" font-family="Noto Sans, Helvetica, Arial, sans-serif">
<rect width="100%" height="100%" fill="#ffffff"/>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#6b7280"/></marker></defs>
<text x="{MARGIN}" y="42" font-size="22" fill="#1b1b1b">{}</text>
<text x="{MARGIN}" y="64" font-size="13" fill="#666666">{}</text>
"##,
        escape(&d.title),
        escape(&d.subtitle),
    );
    if explained {
        let mut x = MARGIN;
        for kind in &kinds {
            let (fill, edge, what) = colours(*kind);
            let _ = writeln!(
                s,
                r##"<rect x="{x:.1}" y="78" width="16" height="16" rx="4" fill="{fill}" stroke="{edge}" stroke-width="1.4"/><text x="{:.1}" y="90.5" font-size="12" fill="#444444">{what}</text>"##,
                x + 22.0
            );
            x += legend_width(*kind);
        }
    }
    let _ = writeln!(
        s,
        r##"<g transform="translate({:.1} {top:.1})">"##,
        MARGIN + (wide - 2.0 * MARGIN - placed.width) / 2.0
    );
    lines(&mut s, d, &placed);
    for ((item, corner), size) in d.items.iter().zip(&placed.corners).zip(&boxes) {
        panel(&mut s, item, *corner, *size, &style);
    }
    numbers(&mut s, &placed, &boxes);
    s.push_str("</g>\n</svg>\n");
    s
}

fn legend_width(kind: Kind) -> f64 {
    22.0 + width(colours(kind).2, 12.0) + 20.0
}

/// The lines that are drawn, those of states in their colour.
fn lines(s: &mut String, d: &Diagram, placed: &Placed) {
    for (line, (a, b)) in placed.lines.iter().zip(&d.edges) {
        let Line::Drawn(points) = line else { continue };
        let state = d.items[*a].kind == Kind::StateIn || d.items[*b].kind == Kind::StateOut;
        let colour = if state { colours(Kind::StateIn).1 } else { "#6b7280" };
        let mut path = format!("M{:.1} {:.1}", points[0].0, points[0].1);
        // Between two points of one layer the line is straight, between layers a curve.
        for pair in points.windows(2) {
            let ((x, y), (to, end)) = (pair[0], pair[1]);
            if (x - to).abs() < 0.5 {
                let _ = write!(path, " L{to:.1} {end:.1}");
            } else {
                let middle = (y + end) / 2.0;
                let _ = write!(path, " C{x:.1} {middle:.1} {to:.1} {middle:.1} {to:.1} {end:.1}");
            }
        }
        let _ = writeln!(
            s,
            r##"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3" marker-end="url(#tip)"/>"##
        );
    }
}

/// Numbers in the place of long lines: at the lower right of where they begin, at the upper left of where they end.
fn numbers(s: &mut String, placed: &Placed, boxes: &[(f64, f64)]) {
    const WIDE: f64 = 26.0;
    let mut arriving = vec![0usize; boxes.len()];
    let mut leaving = BTreeSet::new();
    let mut pill = |x: f64, y: f64, number: usize| {
        let colour = NUMBERS[(number - 1) % NUMBERS.len()];
        let _ = writeln!(
            s,
            r##"<rect x="{x:.1}" y="{:.1}" width="{WIDE}" height="16" rx="8" fill="{colour}"/><text x="{:.1}" y="{:.1}" font-size="10.5" text-anchor="middle" fill="#ffffff">{number}</text>"##,
            y - 8.0,
            x + WIDE / 2.0,
            y + 3.8
        );
    };
    for line in &placed.lines {
        let Line::Numbered { number, from, to } = line else { continue };
        if leaving.insert(*from) {
            let ((x, y), (w, h)) = (placed.corners[*from], boxes[*from]);
            pill(x + w - WIDE - 10.0, y + h + 4.0, *number);
        }
        let (x, y) = placed.corners[*to];
        pill(x + 10.0 + arriving[*to] as f64 * (WIDE + 4.0), y - 3.0, *number);
        arriving[*to] += 1;
    }
}

/// A box: the title and a note, the name, the shape and the parameters.
fn panel(s: &mut String, item: &Item, (x, y): (f64, f64), (w, h): (f64, f64), style: &Style) {
    let (fill, edge, _) = colours(item.kind);
    let dashed = if matches!(item.kind, Kind::StateIn | Kind::StateOut) { r##" stroke-dasharray="5 3""## } else { "" };
    let _ = writeln!(
        s,
        r##"<g><title>{}</title><rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" rx="8" fill="{fill}" stroke="{edge}" stroke-width="1.4"{dashed}/>"##,
        escape(&format!("{} {} {}", item.title, item.name, item.shape))
    );
    let room = w - 2.0 * PAD;
    let mut at = y + 7.0 + style.title;
    let mut text = |x: f64, y: f64, size: f64, colour: &str, right: bool, text: &str| {
        let anchor = if right { r##" text-anchor="end""## } else { "" };
        let _ = writeln!(
            s,
            r##"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{colour}"{anchor}>{}</text>"##,
            escape(text)
        );
    };
    let note = if item.note.is_empty() { 0.0 } else { width(&item.note, style.text) + 8.0 };
    text(x + PAD, at, style.title, edge, false, &fitting(&item.title, style.title, room - note, false));
    if !item.note.is_empty() {
        text(x + w - PAD, at, style.text, "#666666", true, &item.note);
    }
    at += 2.0;
    if !item.name.is_empty() {
        at += style.text * 1.5;
        text(x + PAD, at, style.text, "#6b7280", false, &fitting(&item.name, style.text, room, true));
    }
    if !item.shape.is_empty() || item.params > 0 {
        at += style.text * 1.5;
        let params = match item.params {
            0 => String::new(),
            n => format!("{} parameters", thousands(n)),
        };
        // Of a narrow box the number has less room than the shape.
        let fits = width(&params, style.text) + width(&item.shape, style.text) + 8.0 <= room;
        let params = if fits { params } else { params.replace("parameters", "par.") };
        let left = room - width(&params, style.text) - 8.0;
        text(x + PAD, at, style.text, "#1b1b1b", false, &fitting(&item.shape, style.text, left, false));
        if !params.is_empty() {
            text(x + w - PAD, at, style.text, "#666666", true, &params);
        }
    }
    s.push_str("</g>\n");
}
