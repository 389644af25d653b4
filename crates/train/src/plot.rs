//! Curves of training.

use crate::error::{check, io};
use crate::picture::png;
use crate::{Error, History, Result};
use plotters::prelude::*;
use std::path::Path;

/// The size of a panel.
const PANEL: (u32, u32) = (600, 400);
const TEXT: RGBColor = RGBColor(27, 27, 27);
/// Colours of training and validation.
const COLOURS: [RGBColor; 2] = [RGBColor(43, 108, 176), RGBColor(194, 106, 16)];

/// The values of a number by epoch, of which the first is 1.
type Line = Vec<(i32, f64)>;

/// A number in training and in validation.
struct Panel<'a> {
    name: &'a str,
    lines: [Line; 2],
}

impl History {
    /// Draws every number by epoch as an SVG picture: a panel for the loss and one for each of the others, each with the
    /// number of validation where there is one. Epochs are counted from 1. Values that are not finite are left out.
    ///
    /// # Errors
    /// [`Error::Picture`] if there is nothing to draw.
    pub fn plot(&self) -> Result<String> {
        let panels: Vec<Panel<'_>> = self.panels();
        if panels.is_empty() {
            return Err(Error::Picture { message: "has no numbers to draw".into() });
        }
        let columns = panels.len().min(2);
        let rows = panels.len().div_ceil(columns);
        let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
        let mut svg = String::new();
        let failed = |e: &dyn std::error::Error| Error::Picture { message: e.to_string() };
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&WHITE).map_err(|e| failed(&e))?;
            for (panel, place) in panels.iter().zip(area.split_evenly((rows, columns))) {
                panel.draw(&place).map_err(|e| failed(&*e))?;
            }
            area.present().map_err(|e| failed(&e))?;
        }
        Ok(svg)
    }

    /// [`Self::plot`] into a file, .svg or .png.
    ///
    /// # Errors
    /// [`Error::Option`] for another name; [`Error::Picture`] if there is nothing to draw; [`Error::Io`] if the file cannot
    /// be written.
    pub fn save_plot(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        check("plot", "path", ["svg", "png"].contains(&&*extension), || {
            format!("must end in .svg or .png, but it is `{}`", path.display())
        })?;
        let svg = self.plot()?;
        let bytes = if extension == "png" { png(&svg)? } else { svg.into_bytes() };
        recurve_formats::write_file(path, |w| w.write_all(&bytes)).map_err(io(path))
    }

    fn panels(&self) -> Vec<Panel<'_>> {
        let names = self.names();
        let line = |name: &str| -> Line {
            let values = self.series(name).into_iter().filter(|(_, v)| v.is_finite());
            values.map(|(epoch, v)| (i32::try_from(epoch).unwrap_or(i32::MAX - 2) + 1, v)).collect()
        };
        // Numbers of validation alone have a panel too.
        let mut plain: Vec<&str> = Vec::new();
        for name in &names {
            let name = name.strip_prefix("val_").unwrap_or(name);
            if !plain.contains(&name) {
                plain.push(name);
            }
        }
        let panels = plain.into_iter().map(|name| Panel { name, lines: [line(name), line(&format!("val_{name}"))] });
        panels.filter(|p| p.lines.iter().any(|l| !l.is_empty())).collect()
    }
}

impl Panel<'_> {
    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let all = || self.lines.iter().flatten();
        let (first, last) = all().fold((i32::MAX, i32::MIN), |(a, b), (e, _)| (a.min(*e), b.max(*e)));
        let epochs = if first == last { first - 1..last + 1 } else { first..last };
        let (low, high) = all().fold((f64::MAX, f64::MIN), |(a, b), (_, v)| (a.min(*v), b.max(*v)));
        let room = if high > low { (high - low) * 0.06 } else { high.abs().max(1.0) * 0.1 };
        let title = ("sans-serif", 20).into_font().color(&TEXT);
        let small = ("sans-serif", 14).into_font().color(&TEXT);
        let mut chart = ChartBuilder::on(area)
            .caption(self.name, title)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(epochs.clone(), low - room..high + room)?;
        chart
            .configure_mesh()
            .x_desc("epoch")
            .y_desc(self.name)
            .x_labels(((epochs.end - epochs.start) as usize + 1).min(11))
            .y_label_formatter(&|v| label(*v, high - low))
            .axis_style(TEXT.mix(0.6))
            .bold_line_style(TEXT.mix(0.12))
            .light_line_style(WHITE)
            .label_style(small.clone())
            .axis_desc_style(small.clone())
            .draw()?;
        let few = epochs.len() <= 60;
        for ((line, prefix), colour) in self.lines.iter().zip(["", "val_"]).zip(COLOURS) {
            if line.is_empty() {
                continue;
            }
            chart
                .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
                .label(format!("{prefix}{}", self.name))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            if few {
                chart.draw_series(line.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
            }
        }
        let place = match self.rises() {
            true => SeriesLabelPosition::LowerRight,
            false => SeriesLabelPosition::UpperRight,
        };
        chart
            .configure_series_labels()
            .position(place)
            .margin(10)
            .background_style(WHITE.mix(0.85))
            .border_style(TEXT.mix(0.25))
            .label_font(small)
            .draw()?;
        Ok(())
    }

    /// Whether the number is larger at the end.
    fn rises(&self) -> bool {
        let line = self.lines.iter().find(|l| !l.is_empty());
        line.is_some_and(|l| l[l.len() - 1].1 > l[0].1)
    }
}

/// A value on an axis whose values spread over this much.
fn label(v: f64, spread: f64) -> String {
    let size = if spread > 0.0 { spread } else { v.abs() };
    match size {
        1e-4..1e5 => format!("{v:.*}", ((2.0 - size.log10()).ceil().clamp(0.0, 6.0)) as usize),
        _ => format!("{v:.2e}"),
    }
}
