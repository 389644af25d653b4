//! Pictures of models: what is drawn ([`Diagram`]), where its boxes stand, and the drawing as SVG or PNG. The command
//! `recurve plot` and the Python package draw with it.
//!
//! ```
//! use recurve::{Dense, Device, Lstm, Model, Sequential};
//! use recurve_pictures::Diagram;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Sequential::new().add(Lstm::new(8)).add(Dense::new(1)).build(&[None, None, Some(3)], &Device::Cpu)?;
//! let diagram = Diagram::of_model(&Model::new("example", network));
//! assert!(diagram.svg().contains("LSTM"));
//! // Its input, the layers and its output.
//! assert_eq!(diagram.boxes(), 4);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod diagram;
mod layout;
mod picture;

pub use diagram::Diagram;

use recurve::{Model, OnnxModel, StatePair};

impl Diagram {
    /// The layers of one of Recurve's own models, or of a Keras file.
    pub fn of_model(model: &Model) -> Self {
        diagram::of_native(model)
    }

    /// The nodes of an ONNX file under a title, with the states that go from call to call. Of many nodes, those that
    /// are small and follow each other are one box, unless `every_node` is set.
    pub fn of_onnx(model: &OnnxModel, states: &[StatePair], title: &str, every_node: bool) -> Self {
        diagram::of_onnx(model, states, title, every_node)
    }

    /// The name of the model or of its file.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The number of boxes.
    pub fn boxes(&self) -> usize {
        self.items.len()
    }

    /// The picture as SVG.
    pub fn svg(&self) -> String {
        picture::svg(self)
    }

    /// The picture as PNG.
    ///
    /// # Errors
    /// If it is too large to be drawn as points.
    pub fn png(&self) -> Result<Vec<u8>, recurve::train::Error> {
        recurve::train::png(&self.svg())
    }
}
