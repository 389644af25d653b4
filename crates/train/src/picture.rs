//! Pictures as PNG.

use crate::{Error, Result};
use resvg::{tiny_skia, usvg};

/// An SVG picture as PNG, at twice its size, or as large as common image viewers open. Texts are in Noto Sans, which is a
/// part of the program, because a machine may have no fonts.
///
/// # Errors
/// [`Error::Picture`] for what is no SVG, and for a picture that is too large.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let bad = |message: String| Error::Picture { message };
    let mut options = usvg::Options { font_family: "Noto Sans".into(), ..usvg::Options::default() };
    let fonts = options.fontdb_mut();
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.set_sans_serif_family("Noto Sans");
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| bad(e.to_string()))?;
    // Half a gigabyte.
    const MAX_PIXELS: f32 = (1u32 << 27) as f32;
    let size = tree.size();
    let scale = (MAX_PIXELS / (size.width() * size.height())).sqrt().min(2.0);
    if scale < 0.5 {
        return Err(bad("is too large for a PNG; write an .svg".into()));
    }
    let (width, height) = ((size.width() * scale) as u32, (size.height() * scale) as u32);
    let mut pixels = tiny_skia::Pixmap::new(width, height).ok_or_else(|| bad("has no size".into()))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| bad(e.to_string()))
}
