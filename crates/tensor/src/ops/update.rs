//! Steps of optimisers (`update.wgsl`).

use crate::{DType, Decay, Descent, Device, Error, Result, Tensor, cpu};

impl Tensor {
    /// A parameter after one step of an optimiser, and then its new states, in the memory of the old ones where nothing
    /// else has it. `rates`, `[8]`, are the numbers that [`Descent::RATES`] lists.
    ///
    /// # Errors
    /// [`Error::DType`] unless all are f32, [`Error::Shape`] unless the gradient and the states have the shape of the
    /// parameter, [`Error::Device`] if they are on different devices, [`Error::Argument`] for another number of states.
    pub fn descend(
        self,
        gradient: &Self,
        states: Vec<Self>,
        rates: &Self,
        rule: Descent,
        decay: Decay,
    ) -> Result<Vec<Self>> {
        const NAME: &str = "descend";
        if states.len() != rule.states() {
            let message = format!("must be {} tensors, but they are {}", rule.states(), states.len());
            return Err(Error::Argument { operation: NAME, argument: "states", message });
        }
        let all = [("self", &self), ("gradient", gradient)];
        for (argument, t) in all.into_iter().chain(states.iter().map(|s| ("states", s))) {
            t.check_dtype(NAME, argument, "f32", t.dtype() == DType::F32)?;
            self.check_same_device(t, NAME, argument)?;
            if t.dims() != self.dims() {
                return Err(Error::shape(NAME, argument, self.shape().to_string(), t.shape()));
            }
        }
        rates.check_dtype(NAME, "rates", "f32", rates.dtype() == DType::F32)?;
        self.check_same_device(rates, NAME, "rates")?;
        if rates.dims() != [Descent::RATES] {
            return Err(Error::shape(NAME, "rates", format!("[{}]", Descent::RATES), rates.shape()));
        }
        let mut tensors = states;
        tensors.insert(0, self);
        match gradient.device() {
            Device::Cpu => {
                let (g, r) = (gradient.cpu_f32().expect("f32 on the CPU"), rates.cpu_f32().expect("f32 on the CPU"));
                let r = r.try_into().expect("as many as was checked");
                change_all(tensors.into_iter(), Vec::new(), &mut |slices| {
                    cpu::functions::descend(rule, decay, r, g, slices);
                })
            }
            Device::Gpu(gpu) => gpu.descend(tensors, gradient, rates, rule, decay),
        }
    }
}

/// Changes several tensors on the CPU together. `slices` are the elements of those before.
fn change_all(
    mut tensors: std::vec::IntoIter<Tensor>,
    slices: Vec<&mut [f32]>,
    change: &mut dyn FnMut(Vec<&mut [f32]>),
) -> Result<Vec<Tensor>> {
    let Some(first) = tensors.next() else {
        change(slices);
        return Ok(Vec::new());
    };
    let mut rest = Ok(Vec::new());
    let changed = first.cpu_update(|elements| {
        let mut all: Vec<&mut [f32]> = slices;
        all.push(elements);
        rest = change_all(tensors, all, change);
    })?;
    let mut done = rest?;
    done.insert(0, changed);
    Ok(done)
}
