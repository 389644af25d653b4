//! Random numbers.

use super::Extent;
use super::prelude::*;
use recurve_tensor::{Device, Noise};
use smallvec::SmallVec;

/// Draws numbers in dimensions that may be those of the second input. The first input is the seed, u32 `[2]`: the same
/// seed gives the same numbers on every device. Nothing has a gradient through it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// What is drawn.
    pub noise: Noise,
    /// The dimensions: [`Extent::Axes`] are those of the second input.
    pub dims: Vec<Extent>,
    /// Tells the draws of one seed apart.
    pub stream: u32,
}

impl Operator for Draw {
    fn name(&self) -> &'static str {
        "Draw"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("seed"), Slot::Required("like")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (seed, like) = (ids(inputs, 0)?, required(inputs, 1)?);
        if seed.shape().is_some_and(|s| s != [2]) {
            return Err(Fault::Input(0, "two u32".into()));
        }
        let dims = self.dims.iter().map(|extent| match *extent {
            Extent::Size(n) => Ok(Dim::Size(n)),
            Extent::Axes(first, count) => {
                let axes = like.dims.get(first..first.saturating_add(count));
                let axes = axes.ok_or_else(|| Fault::Attribute("dims", format!("reach beyond those of {like}")))?;
                Ok(axes.iter().fold(Dim::Size(1), |product, d| product.times(d)))
            }
            Extent::Like(_) => Err(Fault::Attribute("dims", "are sizes or axes of the second input".into())),
        });
        let kind = ValueType::new(DType::F32, dims.collect::<Result<Vec<_>, _>>()?);
        if let Noise::Dropout { rate } | Noise::Bernoulli { rate } = self.noise
            && !(0.0..=1.0).contains(&rate)
        {
            return Err(Fault::Attribute("rate", format!("must be in [0, 1], but it is {rate}")));
        }
        Ok(vec![kind])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let like = call.data(1).dims();
        let dims: SmallVec<[usize; 6]> = self.dims.iter().map(|e| e.size(like, || like)).collect();
        Ok(one(Tensor::noise(&dims, self.noise, call.input(0), self.stream)?))
    }
    /// The numbers are what the generator gives in f32, so the truth has them from it.
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (seed, like) = (array(inputs, 0), &array(inputs, 1).dims[..]);
        let dims: Vec<usize> = self.dims.iter().map(|e| e.size(like, || like)).collect();
        let drawn = Tensor::from_u32(&seed.ids(), &[2], &Device::Cpu)
            .and_then(|seed| Tensor::noise(&dims, self.noise, &seed, self.stream)?.to_vec());
        vec![drawn.ok().map(|d| Array::new(&dims, d.into_iter().map(f64::from).collect()))]
    }
    fn gradient(&self, _: &mut Gradients<'_>) -> crate::Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
