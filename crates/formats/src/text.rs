//! Converting text to ids, and outputs to labels.

use crate::files::short;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// How a model reads text: one token per character, with a token before the first and after the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TextSpec {
    /// The token of each id.
    pub vocabulary: Vec<String>,
    /// The id of characters that are not in the vocabulary.
    pub unknown: u32,
    /// The id that is placed before the first character.
    pub begin: u32,
    /// The id that is placed after the last character.
    pub end: u32,
    /// The label of each class of the output.
    pub labels: Vec<String>,
    /// The characters that have several possible labels; the model decides between these.
    pub ambiguous: String,
}

/// The label of one character.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// The index of the character in the text, counted in characters.
    pub index: usize,
    /// The character.
    pub character: char,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

impl TextSpec {
    pub(crate) fn check(&self) -> Result<(), String> {
        let n = self.vocabulary.len();
        for (field, id) in [("unknown", self.unknown), ("begin", self.begin), ("end", self.end)] {
            if id as usize >= n {
                return Err(format!("text.{field} is {id}, but the vocabulary has {n} tokens"));
            }
        }
        if self.labels.iter().any(|l| l.chars().any(char::is_control)) {
            return Err("text.labels has control characters in it".into());
        }
        let mut seen = HashSet::with_capacity(n);
        if let Some(token) = self.vocabulary.iter().find(|t| !seen.insert(t.as_str())) {
            return Err(format!("text.vocabulary has the token `{}` twice", short(token)));
        }
        Ok(())
    }

    /// The id of each token, as [`Self::encode`] takes it.
    pub fn ids(&self) -> HashMap<String, u32> {
        self.vocabulary.iter().cloned().zip(0..).collect()
    }

    /// The ids of a text: begin, one for each character, end. `ids` is the result of [`Self::ids`], which can be reused
    /// for many texts.
    pub fn encode(&self, ids: &HashMap<String, u32>, text: &str) -> Vec<u32> {
        let mut buffer = [0; 4];
        let mut out = vec![self.begin];
        out.extend(text.chars().map(|c| ids.get(&*c.encode_utf8(&mut buffer)).copied().unwrap_or(self.unknown)));
        out.push(self.end);
        out
    }

    /// The labels of the ambiguous characters of `text`, from the probability of each label at each id of
    /// [`Self::encode`], row-major.
    pub fn readings(&self, text: &str, probabilities: &[f32]) -> Vec<Reading> {
        let width = self.labels.len();
        text.chars()
            .enumerate()
            .filter(|(_, c)| self.ambiguous.contains(*c))
            .filter_map(|(index, character)| {
                let row = probabilities.get((index + 1) * width..(index + 2) * width)?;
                let best = (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]))?;
                Some(Reading { index, character, label: self.labels[best].clone(), probability: row[best] })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TextSpec {
        TextSpec {
            vocabulary: ["?", "<", ">", "a", "了"].map(String::from).to_vec(),
            unknown: 0,
            begin: 1,
            end: 2,
            labels: ["le5", "liao3"].map(String::from).to_vec(),
            ambiguous: "了".into(),
        }
    }

    #[test]
    fn encodes_by_character_and_reads_only_what_is_ambiguous() {
        let s = spec();
        assert_eq!(s.encode(&s.ids(), "a了b"), [1, 3, 4, 0, 2]);
        assert_eq!(s.encode(&s.ids(), ""), [1, 2]);
        let p = [0.5, 0.5, 0.9, 0.1, 0.25, 0.75, 1.0, 0.0, 1.0, 0.0];
        let want = Reading { index: 1, character: '了', label: "liao3".into(), probability: 0.75 };
        assert_eq!(s.readings("a了b", &p), [want]);
        assert!(s.readings("ab", &p).is_empty());
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        let bad = TextSpec { end: 5, ..spec() };
        assert_eq!(bad.check().unwrap_err(), "text.end is 5, but the vocabulary has 5 tokens");
        let bad = TextSpec { vocabulary: vec!["a".into(), "b".into(), "a".into()], ..spec() };
        assert_eq!(bad.check().unwrap_err(), "text.vocabulary has the token `a` twice");
    }
}
