//! Drawing a model as boxes, with the input at the top and the output at the bottom.

use recurve::{InputConfig, Summary, thousands};
use resvg::{tiny_skia, usvg};
use std::fmt::Write as _;

const WIDTH: usize = 520;
const MARGIN: usize = 32;
const BOX: usize = 92;
const GAP: usize = 40;
const HEADER: usize = 76;

/// Fill and border colour of a layer's box, by the kind of layer.
fn colours(class: &str) -> (&'static str, &'static str) {
    match class {
        "Embedding" => ("#e7f0fb", "#2f6fb5"),
        "Dense" => ("#eaf5ea", "#3c8a45"),
        "Dropout" => ("#f2f2f2", "#8a8a8a"),
        _ => ("#fdf0e1", "#c9761a"),
    }
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The picture as SVG.
pub(crate) fn svg(summary: &Summary, inputs: &[InputConfig]) -> String {
    let rows = summary.layers.len() + inputs.len();
    let height = HEADER + rows * BOX + (rows - 1) * GAP + MARGIN;
    let mut s = String::new();
    let _ = write!(
        s,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="Noto Sans, Helvetica, Arial, sans-serif">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#555555"/></marker></defs>
<text x="{MARGIN}" y="40" font-size="22" fill="#1b1b1b">{}</text>
<text x="{MARGIN}" y="62" font-size="13" fill="#666666">{} parameters in {} layers</text>
"##,
        escape(&summary.name),
        thousands(summary.total_params),
        summary.layers.len(),
    );
    for (n, input) in inputs.iter().enumerate() {
        let dims: Vec<_> = input.shape.iter().map(|d| d.map_or("None".into(), |n| n.to_string())).collect();
        // The name is only shown if there are several inputs.
        let title = if inputs.len() == 1 { "Input".into() } else { format!("Input {}", input.name) };
        panel(
            &mut s,
            n,
            ("#ffffff", "#555555"),
            [&title, if input.ids { "ids" } else { "f32" }, &format!("({})", dims.join(", ")), ""],
        );
    }
    let row = |name: &str| {
        let layer = || summary.layers.iter().position(|l| l.name == name).map(|n| n + inputs.len());
        inputs.iter().position(|i| i.name == name).or_else(layer).unwrap_or(0)
    };
    for (n, layer) in summary.layers.iter().enumerate() {
        let n = n + inputs.len();
        let mut drawn = Vec::new();
        for from in layer.connected_to.iter().map(|v| row(&v.of)) {
            if !drawn.contains(&from) {
                drawn.push(from);
                arrow(&mut s, from, n);
            }
        }
        let params = format!("{} parameters", thousands(layer.params));
        panel(&mut s, n, colours(layer.class), [layer.class, &layer.name, &layer.output_shape(), &params]);
    }
    s.push_str("</svg>\n");
    s
}

/// An arrow from one row to another: straight down to the next row, or around the rows in between.
fn arrow(s: &mut String, from: usize, to: usize) {
    let (bottom, top) = (HEADER + from * (BOX + GAP) + BOX, HEADER + to * (BOX + GAP) - 1);
    let path = if to == from + 1 {
        format!("M{0} {bottom} L{0} {top}", WIDTH / 2)
    } else {
        // Along the right margin, from the middle of one box's side to that of the other.
        let (right, out) = (WIDTH - MARGIN, WIDTH - MARGIN / 4);
        let middle = |row: usize| HEADER + row * (BOX + GAP) + BOX / 2;
        format!("M{right} {} C{out} {1} {out} {2} {right} {2}", middle(from), middle(from) + GAP, middle(to))
    };
    let _ =
        writeln!(s, r##"<path d="{path}" fill="none" stroke="#555555" stroke-width="1.6" marker-end="url(#tip)"/>"##);
}

/// A box with a title, a name, a shape and a number of parameters.
fn panel(s: &mut String, row: usize, (fill, edge): (&str, &str), [title, name, shape, params]: [&str; 4]) {
    let (x, y, w) = (MARGIN, HEADER + row * (BOX + GAP), WIDTH - 2 * MARGIN);
    let right = x + w - 18;
    let _ = writeln!(
        s,
        r##"<rect x="{x}" y="{y}" width="{w}" height="{BOX}" rx="10" fill="{fill}" stroke="{edge}" stroke-width="1.6"/>
<text x="{}" y="{}" font-size="18" fill="{edge}">{}</text>
<text x="{right}" y="{}" font-size="13" text-anchor="end" fill="#666666">{}</text>
<line x1="{}" y1="{}" x2="{right}" y2="{}" stroke="{edge}" stroke-opacity="0.35"/>
<text x="{}" y="{}" font-size="15" fill="#1b1b1b">{}</text>
<text x="{right}" y="{}" font-size="13" text-anchor="end" fill="#666666">{}</text>"##,
        x + 18,
        y + 32,
        escape(title),
        y + 32,
        escape(name),
        x + 18,
        y + 46,
        y + 46,
        x + 18,
        y + 72,
        escape(shape),
        y + 72,
        escape(params),
    );
}

/// The picture as PNG, at twice its size.
pub(crate) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let mut options = usvg::Options { font_family: "Noto Sans".into(), ..usvg::Options::default() };
    // The machine may have no fonts, so the program contains one.
    options.fontdb_mut().load_font_data(notosans::REGULAR_TTF.to_vec());
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| e.to_string())?;
    let scale = 2.0;
    let size = tree.size();
    let (width, height) = ((size.width() * scale) as u32, (size.height() * scale) as u32);
    // Half a gigabyte; common image viewers open nothing larger.
    const MAX_PIXELS: u64 = 1 << 27;
    let fits = u64::from(width) * u64::from(height) <= MAX_PIXELS;
    let mut pixels = fits
        .then(|| tiny_skia::Pixmap::new(width, height))
        .flatten()
        .ok_or("the model has too many layers for a PNG; write an .svg")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| e.to_string())
}
