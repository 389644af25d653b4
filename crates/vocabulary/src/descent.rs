//! The arithmetic of optimisers.

/// How a parameter follows from its gradient and from what an optimiser keeps for it, its states. The numbers are
/// [rates](Self::RATES), which may change from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Descent {
    /// Along the gradient, or along a decaying sum of the gradients.
    Gradient {
        /// Keeps the sum, its only state.
        momentum: bool,
    },
    /// By the gradient over the root of the mean of its squares: RMSprop; Adagrad with their sum. States: the mean, the
    /// momentum, the mean of the gradients.
    Root {
        /// Adds up the changes.
        momentum: bool,
        /// Takes the variance instead of the mean of squares.
        centered: bool,
    },
    /// By the mean of the gradients over the root of the mean of their squares: Adam. States: both means, and the
    /// largest mean of squares.
    Moments {
        /// Takes the largest mean of squares so far.
        amsgrad: bool,
    },
    /// By the sign of a mean of the gradients: Lion. State: another mean of them.
    Sign,
}

/// What a parameter's decay is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Decay {
    /// There is none.
    None,
    /// The gradient.
    Gradient,
    /// The parameter, before the step.
    Parameter,
}

impl Descent {
    /// The number of rates:
    ///
    /// | | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    /// |---|---|---|---|---|---|---|---|---|
    /// | [`Self::Gradient`] | decay | of the old sum | of the gradient in the sum | of the sum in the change | of the gradient in the change | | | |
    /// | [`Self::Root`] | decay | of the old means | of the gradient in them | added inside of the root | added to the root | of the old momentum | of the gradient | of the change |
    /// | [`Self::Moments`] | decay | of the gradient in its mean | of its square | of the change | of the root | added to the root | | |
    /// | [`Self::Sign`] | decay | of the state in the mean | of the gradient in it | of the old state | of the gradient in the state | of the change | | |
    pub const RATES: usize = 8;

    /// The most states.
    pub const MOST_STATES: usize = 3;

    /// The number of states.
    pub const fn states(self) -> usize {
        match self {
            Self::Gradient { momentum } => momentum as usize,
            Self::Root { momentum, centered } => 1 + momentum as usize + centered as usize,
            Self::Moments { amsgrad } => 2 + amsgrad as usize,
            Self::Sign => 1,
        }
    }

    /// Its number in the kernels, of which each has further constants.
    pub const fn code(self) -> u32 {
        match self {
            Self::Gradient { .. } => 0,
            Self::Root { .. } => 1,
            Self::Moments { .. } => 2,
            Self::Sign => 3,
        }
    }

    /// Whether changes are added up, whether gradients are centered, and whether the largest mean is taken.
    pub const fn options(self) -> [bool; 3] {
        match self {
            Self::Gradient { momentum } => [momentum, false, false],
            Self::Root { momentum, centered } => [momentum, centered, false],
            Self::Moments { amsgrad } => [false, false, amsgrad],
            Self::Sign => [false; 3],
        }
    }

    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Gradient { momentum: false },
        Self::Gradient { momentum: true },
        Self::Root { momentum: false, centered: false },
        Self::Root { momentum: true, centered: false },
        Self::Root { momentum: false, centered: true },
        Self::Root { momentum: true, centered: true },
        Self::Moments { amsgrad: false },
        Self::Moments { amsgrad: true },
        Self::Sign,
    ];
}

impl Decay {
    /// Its number in the kernels.
    pub const fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Gradient => 1,
            Self::Parameter => 2,
        }
    }

    /// Every one.
    pub const ALL: [Self; 3] = [Self::None, Self::Gradient, Self::Parameter];
}
