//! What a comparison tells: for people a table and a line for each ratio, for programs one object.

use serde_json::{Value, json};
use viewstone::cli::cluster::table;

/// A ratio that was to be reached.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// Of what over what.
    pub name: String,
    /// The median of the rounds' ratios.
    pub value: f64,
    /// What it should be: at most so much, or at least.
    pub goal: Option<Goal>,
}

/// What a ratio should be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// No larger.
    AtMost(f64),
    /// No smaller.
    AtLeast(f64),
}

impl Ratio {
    /// The median of `values`.
    pub fn median(name: &str, values: &[f64], goal: Option<Goal>) -> Self {
        Self {
            name: name.to_owned(),
            value: median(values),
            goal,
        }
    }

    fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtMost(bound) => self.value <= bound,
            Goal::AtLeast(bound) => self.value >= bound,
        })
    }

    fn to_text(&self) -> String {
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtMost(bound)) => format!(" (goal: at most {bound})"),
            Some(Goal::AtLeast(bound)) => format!(" (goal: at least {bound})"),
        };
        let missed = if self.reached() == Some(false) {
            ": missed"
        } else {
            ""
        };
        format!("{}: {:.2}{goal}{missed}", self.name, self.value)
    }

    fn to_json(&self) -> Value {
        let goal = match self.goal {
            None => Value::Null,
            Some(Goal::AtMost(bound)) => json!({ "at_most": bound }),
            Some(Goal::AtLeast(bound)) => json!({ "at_least": bound }),
        };
        json!({
            "name": self.name,
            "value": self.value,
            "goal": goal,
            "reached": self.reached(),
        })
    }
}

/// The middle value; of an even number, the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A comparison's outcome.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its command.
    pub name: &'static str,
    /// What was run, in words and numbers.
    pub parameters: Value,
    /// Names of the columns, then a row for each run.
    pub rows: Vec<Vec<String>>,
    /// What it comes to.
    pub ratios: Vec<Ratio>,
}

impl Report {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("# {}\n{}\n\n", self.name, self.parameters);
        text.push_str(&table(&self.rows));
        text.push('\n');
        for ratio in &self.ratios {
            text.push_str(&ratio.to_text());
            text.push('\n');
        }
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "parameters": self.parameters,
            "columns": self.rows.first(),
            "runs": self.rows.get(1..),
            "ratios": self.ratios.iter().map(Ratio::to_json).collect::<Vec<_>>(),
        })
    }
}

/// A row of a table.
pub fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.into()
}

/// The first row.
pub fn heading<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_goal_is_reached_from_its_own_side() {
        let ratio = |value, goal| Ratio::median("it", &[value], Some(goal)).reached();
        assert_eq!(ratio(1.4, Goal::AtMost(1.5)), Some(true));
        assert_eq!(ratio(1.6, Goal::AtMost(1.5)), Some(false));
        assert_eq!(ratio(0.9, Goal::AtLeast(0.85)), Some(true));
        assert_eq!(ratio(0.8, Goal::AtLeast(0.85)), Some(false));
        assert_eq!(ratio(f64::NAN, Goal::AtMost(1.5)), Some(false));
    }
}
