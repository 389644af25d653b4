//! Masks that tell padding from data.

use super::prelude::*;

/// A mask as in Keras, of U32: 0 at padding, 1 elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mask {
    /// Input: ids of any shape. An id equal to this one is padding.
    Ids(u32),
    /// Input: floats `[…, W]`; output: `[…]`. A position whose W elements all equal this value is padding.
    Features(f32),
}

impl Operator for Mask {
    fn name(&self) -> &'static str {
        "Mask"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let dims = match self {
            Self::Ids(_) => ids(inputs, 0)?.dims.clone(),
            Self::Features(_) => match float(inputs, 0)?.dims.split_last() {
                Some((_, dims)) => dims.to_vec(),
                None => return Err(Fault::Input(0, "[…, features]".into())),
            },
        };
        Ok(vec![ValueType::new(DType::U32, dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let value = match *self {
            Self::Ids(id) => id as f32,
            Self::Features(value) => value,
        };
        Ok(one(call.input(0).mask(value)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let one = |differs: bool| f64::from(u8::from(differs));
        vec![Some(match *self {
            Self::Ids(id) => Array::new(&x.dims, x.data.iter().map(|&v| one(v != f64::from(id))).collect()),
            Self::Features(value) => {
                let rows = x.data.chunks_exact(x.last());
                let valid = rows.map(|row| one(row.iter().any(|&v| v != f64::from(value)))).collect();
                Array::new(&x.dims[..x.dims.len() - 1], valid)
            }
        })]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
