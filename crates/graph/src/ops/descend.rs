//! Steps of optimisers.

use super::prelude::*;
use crate::Data;
use recurve_tensor::{Decay, Descent};

/// A parameter after one step of an optimiser, and its new states. They are written over the old ones where nothing else
/// needs them. The third input has the numbers that [`Descent::RATES`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descend {
    /// The arithmetic.
    pub rule: Descent,
    /// What the decay of the parameter is added to.
    pub decay: Decay,
}

const SLOTS: [Slot; 3 + Descent::MOST_STATES] = [
    Slot::Required("parameter"),
    Slot::Required("gradient"),
    Slot::Required("rates"),
    Slot::Required("state"),
    Slot::Required("second state"),
    Slot::Required("third state"),
];

impl Operator for Descend {
    fn name(&self) -> &'static str {
        "Descend"
    }
    fn slots(&self) -> &[Slot] {
        &SLOTS[..3 + self.rule.states()]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let parameter = required(inputs, 0)?;
        for n in (0..inputs.len()).filter(|&n| n != 2) {
            let t = required(inputs, n)?;
            let same =
                t.rank() == parameter.rank() && t.dims.iter().zip(&parameter.dims).all(|(a, b)| a.meet(b).is_some());
            if t.dtype != DType::F32 || !same {
                return Err(Fault::Input(n, format!("f32 of the shape of the parameter, {parameter}")));
            }
        }
        let rates = required(inputs, 2)?;
        if rates.dtype != DType::F32 || rates.shape().is_some_and(|s| s != [Descent::RATES]) {
            return Err(Fault::Input(2, format!("f32 [{}]", Descent::RATES)));
        }
        Ok(vec![parameter.clone(); 1 + self.rule.states()])
    }
    fn reuses(&self, index: usize) -> bool {
        index != 1 && index != 2
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let own = |n: usize| match call.take(n) {
            Some(Data::Tensor(t)) => t,
            _ => call.input(n).clone(),
        };
        let states = (0..self.rule.states()).map(|n| own(3 + n)).collect();
        let all = own(0).descend(call.input(1), states, call.input(2), self.rule, self.decay)?;
        Ok(all.into_iter().map(|t| Some(t.into())).collect())
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let rates = array(inputs, 2).data.as_slice().try_into().expect("as many as its type says");
        let gradient = &array(inputs, 1).data;
        let mut all: Vec<Array> =
            (0..inputs.len()).filter(|&n| n != 1 && n != 2).map(|n| array(inputs, n).clone()).collect();
        for (e, &g) in gradient.iter().enumerate() {
            let mut states: Vec<f64> = all[1..].iter().map(|s| s.data[e]).collect();
            all[0].data[e] = recurve_reference::descend(self.rule, self.decay, rates, all[0].data[e], g, &mut states);
            all[1..].iter_mut().zip(states).for_each(|(array, new)| array.data[e] = new);
        }
        all.into_iter().map(Some).collect()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
