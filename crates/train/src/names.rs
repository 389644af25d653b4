//! Losses, optimisers and metrics by the names that Keras gives them in `compile`.

use crate::LossKind;
use crate::error::check;
use crate::{Adagrad, Adam, Averaging, Error, Lion, Loss, Metric, Optimizer, OutputMetric, Result, RmsProp, Sgd};
use std::str::FromStr;

/// A value with Keras's defaults, and its names: the first is the one that an error lists.
type Named<T> = (&'static [&'static str], fn() -> T);

const LOSSES: &[Named<Loss>] = &[
    (&["binary_crossentropy", "BinaryCrossentropy", "bce", "BCE"], Loss::binary_crossentropy),
    (&["categorical_crossentropy", "CategoricalCrossentropy"], Loss::categorical_crossentropy),
    (&["sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"], Loss::sparse_categorical_crossentropy),
    (&["mean_squared_error", "MeanSquaredError", "mse", "MSE"], Loss::mean_squared_error),
    (&["mean_absolute_error", "MeanAbsoluteError", "mae", "MAE"], Loss::mean_absolute_error),
    (&["huber", "Huber"], || Loss::huber(1.0)),
    (&["ctc", "CTC"], Loss::ctc_keras),
];

/// Names of optimisers are compared without regard to case.
const OPTIMIZERS: &[Named<Optimizer>] = &[
    (&["sgd"], || Sgd::keras().into()),
    (&["rmsprop"], || RmsProp::keras().into()),
    (&["adam"], || Adam::keras().into()),
    (&["adamw"], || Adam::adamw_keras().into()),
    (&["adagrad"], || Adagrad::keras().into()),
    (&["lion"], || Lion::keras().into()),
];

const METRICS: &[Named<Metric>] = &[
    (&["binary_accuracy", "BinaryAccuracy"], Metric::binary_accuracy),
    (&["categorical_accuracy", "CategoricalAccuracy"], || Metric::CategoricalAccuracy),
    (&["sparse_categorical_accuracy", "SparseCategoricalAccuracy"], || Metric::SparseCategoricalAccuracy),
    (&["top_k_categorical_accuracy", "TopKCategoricalAccuracy"], || Metric::TopKCategoricalAccuracy { k: 5 }),
    (&["sparse_top_k_categorical_accuracy", "SparseTopKCategoricalAccuracy"], || Metric::TopKCategoricalAccuracy {
        k: 5,
    }),
    (&["precision", "Precision"], Metric::precision),
    (&["recall", "Recall"], Metric::recall),
    (&["f1_score", "F1Score"], || Metric::F1 { threshold: None, averaging: Averaging::Macro }),
    (&["auc", "AUC"], Metric::auc),
    (&["mean_squared_error", "MeanSquaredError", "mse", "MSE"], || Metric::MeanSquaredError),
    (&["mean_absolute_error", "MeanAbsoluteError", "mae", "MAE"], || Metric::MeanAbsoluteError),
    (&["root_mean_squared_error", "RootMeanSquaredError"], || Metric::RootMeanSquaredError),
];

/// The names of the accuracy that [`OutputMetric::by_name`] chooses.
const ACCURACIES: [&str; 2] = ["accuracy", "acc"];

fn find<T>(
    of: &'static str,
    all: &[Named<T>],
    more: &[&'static str],
    is: impl Fn(&str) -> bool,
    name: &str,
) -> Result<T> {
    if let Some((_, make)) = all.iter().find(|(names, _)| names.iter().any(|n| is(n))) {
        return Ok(make());
    }
    let known: Vec<&str> = more.iter().copied().chain(all.iter().map(|(names, _)| names[0])).collect();
    Err(Error::Option {
        of,
        argument: "name",
        message: format!("must be one of {}, but it is `{name}`", known.join(", ")),
    })
}

impl FromStr for Loss {
    type Err = Error;

    /// A loss with Keras's defaults by a name of Keras's: `binary_crossentropy`, `mse`, `MeanSquaredError`.
    ///
    /// ```
    /// # use recurve_train::Loss;
    /// assert_eq!("mse".parse::<Loss>()?, Loss::mean_squared_error());
    /// # Ok::<(), recurve_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`] for another name, with those that there are.
    fn from_str(name: &str) -> Result<Self> {
        find("loss", LOSSES, &[], |n| n == name, name)
    }
}

impl FromStr for Optimizer {
    type Err = Error;

    /// An optimiser with Keras's defaults by a name of Keras's, in capital letters or not: `rmsprop`, `Adam`.
    ///
    /// ```
    /// # use recurve_train::{Adam, Optimizer};
    /// assert_eq!("adam".parse::<Optimizer>()?, Adam::keras().into());
    /// # Ok::<(), recurve_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`] for another name, with those that there are.
    fn from_str(name: &str) -> Result<Self> {
        find("optimizer", OPTIMIZERS, &[], |n| n.eq_ignore_ascii_case(name), name)
    }
}

impl FromStr for Metric {
    type Err = Error;

    /// A metric with Keras's defaults by a name of Keras's: `auc`, `mae`, `BinaryAccuracy`. Which accuracy `accuracy` is
    /// depends on more than its name: see [`OutputMetric::by_name`].
    ///
    /// # Errors
    /// [`Error::Option`] for another name, with those that there are.
    fn from_str(name: &str) -> Result<Self> {
        find("metric", METRICS, &[], |n| n == name, name)
    }
}

impl OutputMetric {
    /// A metric by a name of Keras's, under this name. `accuracy` and `acc` are the accuracy that Keras takes: on the two
    /// sides of one half where the output, whose last axis has the size `width`, has one number; that of labels for a loss
    /// of labels; else that of the largest target. That also holds for a loss of logits, whose accuracy
    /// [`Self::accuracy`] counts on the two sides of 0.
    ///
    /// ```
    /// # use recurve_train::{Loss, Metric, OutputMetric};
    /// let accuracy = OutputMetric::by_name("acc", &"sparse_categorical_crossentropy".parse()?, Some(10))?;
    /// assert_eq!((&*accuracy.name, accuracy.metric), ("acc", Metric::SparseCategoricalAccuracy));
    /// # Ok::<(), recurve_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`] for another name, with those that there are, and for the accuracy of a CTC loss.
    pub fn by_name(name: &str, loss: &Loss, width: Option<usize>) -> Result<Self> {
        let metric = if ACCURACIES.contains(&name) {
            check("metric", "accuracy", !matches!(loss.kind, LossKind::Ctc { .. }), || {
                "is of a loss whose targets have the shape of the output, or are labels; a CTC loss has neither".into()
            })?;
            match loss.kind {
                _ if width == Some(1) => Metric::binary_accuracy(),
                LossKind::SparseCategoricalCrossentropy { .. } => Metric::SparseCategoricalAccuracy,
                _ => Metric::CategoricalAccuracy,
            }
        } else {
            find("metric", METRICS, &ACCURACIES[..1], |n| n == name, name)?
        };
        Ok(Self::new(metric).name(name))
    }
}
