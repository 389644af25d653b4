//! Elements as another type.

use super::map::real;
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, Int, IntArray};
use half::{bf16, f16};
use recurve_tensor::Function;

/// What elements become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// f32
    F32,
    /// f32 that is rounded to the nearest f16.
    F16,
    /// f32 that is rounded to the nearest bf16.
    Bf16,
    /// Whole numbers of a type: floats lose their fraction, what does not fit its last bits.
    Int(Int),
    /// Whether they are not 0.
    Bool,
}

impl Target {
    /// The element type.
    pub const fn element(self) -> Element {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => Element::F32,
            Self::Int(int) => Element::Int(int),
            Self::Bool => Element::Bool,
        }
    }
}

/// `x` as another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The type of x.
    pub from: Element,
    /// What it becomes.
    pub to: Target,
}

impl Cast {
    /// Of a whole number, what stands in host memory too.
    fn whole(&self, v: i64) -> Option<i64> {
        match self.to {
            Target::Int(int) => Some(int.wrap(v)),
            Target::Bool => Some((v != 0).into()),
            _ => None,
        }
    }

    /// Of a whole number, a float.
    fn float(&self, v: i64) -> f32 {
        let unsigned = self.from == Element::Int(Int::U64);
        let wide = if unsigned { v as u64 as f64 } else { v as f64 };
        match self.to {
            Target::F16 => f16::from_f64(wide).to_f32(),
            Target::Bf16 => bf16::from_f64(wide).to_f32(),
            _ if unsigned => v as u64 as f32,
            _ => v as f32,
        }
    }

    /// Whether it makes whole numbers of a type that has this one.
    fn holds(&self, largest: u32) -> bool {
        matches!(self.to, Target::Int(int) if i64::from(largest) <= int.range().1)
    }

    /// What is done to f32 on a device, if anything.
    fn function(&self) -> Option<Function> {
        match self.to {
            Target::F32 => None,
            Target::F16 => Some(Function::RoundF16),
            Target::Bf16 => Some(Function::RoundBf16),
            Target::Bool if self.from == Element::Bool => None,
            Target::Bool => Some(Function::NonZero),
            Target::Int(int) => {
                let fits = match self.from {
                    Element::Bool => true,
                    Element::Int(from) => {
                        let ((a, b), (low, high)) = (from.range(), int.range());
                        low <= a && b <= high
                    }
                    _ => false,
                };
                (!fits).then(|| int.function())
            }
        }
    }
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if x.dtype != self.from {
            return Err(Fault::Input(0, self.from.to_string()));
        }
        let whole = self.to.element().is_whole();
        let known = x.known.as_ref().filter(|_| whole);
        let known = known.map(|k| k.iter().map(|v| v.and_then(|v| self.whole(v))).collect::<Vec<_>>());
        Ok(vec![ValueType { dtype: self.to.element(), ..x.clone() }.with_known(known)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        match call.data(0) {
            Data::Ints(x) if self.to.element() == self.from => Ok(one(x.clone())),
            Data::Ints(x) if self.to.element().is_whole() => {
                let y: Vec<i64> = x.data().iter().map(|&v| self.whole(v).expect("whole, as was seen")).collect();
                Ok(one(IntArray::new(x.dims(), y)))
            }
            Data::Ints(x) => {
                let y: Vec<f32> = x.data().iter().map(|&v| self.float(v)).collect();
                Ok(one(Tensor::from_f32(&y, x.dims(), call.device)?))
            }
            // Ids that the new type holds too stay ids.
            Data::Tensor(x) if x.dtype() == DType::U32 && self.holds(x.bound()) => Ok(one(x.clone())),
            data => {
                let x = data.to_f32(call.device)?;
                Ok(one(match self.function() {
                    Some(f) => x.map(f)?,
                    None => x.into_owned(),
                }))
            }
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let f = |&v: &f64| match (self.from.is_whole(), self.to) {
            (_, Target::F32) => f64::from(v as f32),
            (true, Target::Int(_) | Target::Bool) => self.whole(v as i64).map_or(f64::NAN, |v| v as f64),
            _ => self.function().map_or(v, |f| real(f, v)),
        };
        vec![Some(Array::new(&x.dims, x.data.iter().map(f).collect()))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        // Rounding is taken for the identity; whole numbers and truth values change in jumps.
        if self.to.element().is_float() {
            let dy = g.of_only_output();
            if g.kind(g.input(0)).dtype != Element::F32 {
                return Err(g.missing("its input is not f32"));
            }
            g.give(0, dy);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
