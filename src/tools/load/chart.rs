//! Charts as SVG, drawn into the page they stand in: colours are the page's, by class, so that they follow
//! light and dark.

use std::fmt::Write as _;

/// The size of a chart and where its plotting area lies, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Size {
    pub const PANEL: Self = Self {
        width: 540.0,
        height: 260.0,
        left: 74.0,
        right: 16.0,
        top: 14.0,
        bottom: 46.0,
    };
}

/// A line of values: where they begin and end, and how they are spaced.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// What it shows, with the unit.
    pub label: &'static str,
    pub min: f64,
    pub max: f64,
    pub is_log: bool,
    /// How a value is written.
    pub text: fn(f64) -> String,
}

impl Axis {
    /// From zero to a little more than the greatest.
    pub fn linear(label: &'static str, values: impl Iterator<Item = f64>, text: fn(f64) -> String) -> Self {
        let most = values.fold(0.0, f64::max);
        let step = step_for(most.max(f64::MIN_POSITIVE));
        Self {
            label,
            min: 0.0,
            max: (most * 1.02 / step).ceil().max(1.0) * step,
            is_log: false,
            text,
        }
    }

    /// From the last 1, 2 or 5 below the smallest to the first above the greatest.
    pub fn log(label: &'static str, values: impl Iterator<Item = f64>, text: fn(f64) -> String) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0f64);
        for value in values.filter(|value| *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if least > most {
            (least, most) = (1.0, 10.0);
        }
        let below = round_steps(least / 10.0, least).last().copied().unwrap_or(least);
        let above = round_steps(most, most * 10.0).first().copied().unwrap_or(most);
        Self {
            label,
            min: below,
            max: if above > below { above } else { 2.0 * below },
            is_log: true,
            text,
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.is_log {
            true => (value.max(self.min) / self.min).ln() / (self.max / self.min).ln(),
            false => (value - self.min) / (self.max - self.min),
        };
        place.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.is_log {
            let step = step_for(self.max - self.min);
            let count = ((self.max - self.min) / step).round() as usize;
            return (0..=count).map(|tick| self.min + tick as f64 * step).collect();
        }
        let all = round_steps(self.min, self.max);
        let is_power = |value: f64| (value.log10() - value.log10().round()).abs() < 1e-6;
        match all.len() {
            ..=8 => all,
            _ => all.into_iter().filter(|value| is_power(*value)).collect(),
        }
    }
}

/// A step of 1, 2 or 5 that cuts a range into about five.
fn step_for(range: f64) -> f64 {
    let rough = range / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

/// 1, 2 and 5 times powers of ten, from `min` to `max`.
fn round_steps(min: f64, max: f64) -> Vec<f64> {
    let first = min.log10().floor() as i32 - 1;
    let last = max.log10().ceil() as i32 + 1;
    let powers = (first..=last).map(|power| 10f64.powi(power));
    let steps = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * power));
    steps
        .filter(|step| *step >= min * 0.999_999 && *step <= max * 1.000_001)
        .collect()
}

/// A number in thousands or millions.
pub(super) fn count(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", short(value / 1e6)),
        1e3.. => format!("{} k", short(value / 1e3)),
        _ => short(value),
    }
}

/// A time given in microseconds.
pub(super) fn micros(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", short(us / 1e6)),
        1e3.. => format!("{} ms", short(us / 1e3)),
        _ => format!("{} µs", short(us)),
    }
}

/// A number with three significant digits at most.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A chart under construction.
#[derive(Debug)]
pub(super) struct Chart {
    size: Size,
    x: Axis,
    y: Axis,
    body: String,
}

impl Chart {
    /// An empty chart with its axes.
    pub fn new(size: Size, x: Axis, y: Axis) -> Self {
        let mut chart = Self {
            size,
            x,
            y,
            body: String::new(),
        };
        chart.draw_x_axis();
        chart.draw_y_axis();
        chart
    }

    /// A chart whose rows have names instead of values: only the horizontal axis is drawn.
    pub fn with_rows(size: Size, x: Axis, rows: usize) -> Self {
        let y = Axis {
            label: "",
            // Rows go downwards.
            min: rows as f64,
            max: 0.0,
            is_log: false,
            text: short,
        };
        let mut chart = Self {
            size,
            x,
            y,
            body: String::new(),
        };
        chart.draw_x_axis();
        chart
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.body.write_fmt(arguments);
    }

    pub fn x(&self, value: f64) -> f64 {
        let size = self.size;
        size.left + self.x.place(value) * (size.width - size.left - size.right)
    }

    pub fn y(&self, value: f64) -> f64 {
        let size = self.size;
        size.height - size.bottom - self.y.place(value) * (size.height - size.top - size.bottom)
    }

    fn draw_x_axis(&mut self) {
        let Size {
            height,
            top,
            bottom,
            left,
            right,
            width,
        } = self.size;
        let (base, middle) = (height - bottom, (left + width - right) / 2.0);
        for tick in self.x.ticks() {
            let (x, text) = (self.x(tick), (self.x.text)(tick));
            self.put(format_args!(
                "<line class=grid x1={x:.1} x2={x:.1} y1={top:.1} y2={base:.1} />\
                 <text class=tick x={x:.1} y={:.1} text-anchor=middle>{text}</text>",
                base + 16.0
            ));
        }
        let label = self.x.label;
        self.put(format_args!(
            "<text class=label x={middle:.1} y={:.1} text-anchor=middle>{label}</text>",
            height - 8.0
        ));
    }

    fn draw_y_axis(&mut self) {
        let Size {
            height,
            top,
            bottom,
            left,
            right,
            width,
        } = self.size;
        for tick in self.y.ticks() {
            let (y, text) = (self.y(tick), (self.y.text)(tick));
            self.put(format_args!(
                "<line class=grid x1={left:.1} x2={:.1} y1={y:.1} y2={y:.1} />\
                 <text class=tick x={:.1} y={:.1} text-anchor=end>{text}</text>",
                width - right,
                left - 6.0,
                y + 4.0
            ));
        }
        let (label, middle) = (self.y.label, (top + height - bottom) / 2.0);
        self.put(format_args!(
            "<text class=label transform='translate(14 {middle:.1}) rotate(-90)' text-anchor=middle>{label}</text>"
        ));
    }

    /// Steps over bins, filled down to the axis: `(from, to, value)`.
    pub fn area(&mut self, class: &str, title: &str, bins: &[(f64, f64, f64)]) {
        let base = self.size.height - self.size.bottom;
        let mut path = String::new();
        let mut last_end = None;
        for (from, to, value) in bins {
            let (from, to, y) = (self.x(*from), self.x(*to), self.y(*value));
            // Neighbouring bins are one outline; a gap goes down to the axis.
            if last_end.is_none_or(|end: f64| (end - from).abs() > 0.2) {
                if let Some(end) = last_end {
                    let _ = write!(path, "L{end:.1} {base:.1}");
                }
                let _ = write!(path, "M{from:.1} {base:.1}");
            }
            let _ = write!(path, "L{from:.1} {y:.1}L{to:.1} {y:.1}");
            last_end = Some(to);
        }
        if let Some(end) = last_end {
            let _ = write!(path, "L{end:.1} {base:.1}");
        }
        self.put(format_args!(
            "<path class='area {class}' d='{path}'><title>{}</title></path>",
            escape(title)
        ));
    }

    /// A line through points.
    pub fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y)))
            .collect();
        self.put(format_args!(
            "<polyline class='line {class}' points='{}' />",
            points.join(" ")
        ));
    }

    /// A point, hollow or not.
    pub fn dot(&mut self, class: &str, title: &str, x: f64, y: f64, is_hollow: bool) {
        let (x, y) = (self.x(x), self.y(y));
        let hollow = if is_hollow { " hollow" } else { "" };
        self.put(format_args!(
            "<circle class='dot {class}{hollow}' cx={x:.1} cy={y:.1} r=4.5><title>{}</title></circle>",
            escape(title)
        ));
    }

    /// A horizontal bar from zero, with its value at the end.
    pub fn bar(&mut self, class: &str, value: f64, row: f64, thickness: f64, text: &str) {
        let (left, end) = (self.size.left, self.x(value));
        let (y, pixels) = (self.y(row), self.y(row + thickness) - self.y(row));
        self.put(format_args!(
            "<rect class='bar {class}' x={left:.1} y={:.1} width={:.1} height={pixels:.1} rx=1.5 />\
             <text class=tick x={:.1} y={:.1}>{}</text>",
            y,
            (end - left).max(1.0),
            end + 5.0,
            y + pixels / 2.0 + 4.0,
            escape(text)
        ));
    }

    /// The name of a row, left of the axis, and a line through its middle.
    pub fn row_name(&mut self, row: f64, name: &str) {
        let (left, right, y) = (self.size.left, self.size.width - self.size.right, self.y(row));
        self.put(format_args!(
            "<line class=grid x1={left:.1} x2={right:.1} y1={y:.1} y2={y:.1} />\
             <text class=tick x={:.1} y={:.1} text-anchor=end>{}</text>",
            left - 8.0,
            y + 4.0,
            escape(name)
        ));
    }

    /// The drawing, for a page; `title` is what a screen reader says.
    pub fn finish(self, title: &str) -> String {
        let Size { width, height, .. } = self.size;
        format!(
            "<svg viewBox='0 0 {width} {height}' role=img aria-label=\"{}\">{}</svg>",
            escape(title),
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_axis_ends_at_round_values_around_the_data() {
        let axis = Axis::log("", [130.0, 8000.0].into_iter(), micros);
        assert!(
            (axis.min - 100.0).abs() < 1e-6 && (axis.max - 10_000.0).abs() < 1e-6,
            "{axis:?}"
        );
        assert!((axis.place(1000.0) - 0.5).abs() < 1e-9);
        let ticks: Vec<String> = axis.ticks().into_iter().map(micros).collect();
        assert_eq!(
            ticks,
            ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms"]
        );
    }

    #[test]
    fn axes_without_data_or_of_one_value_still_have_a_length() {
        for axis in [
            Axis::log("", std::iter::empty(), short),
            Axis::log("", [5.0, 5.0].into_iter(), short),
            Axis::linear("", [0.0].into_iter(), short),
        ] {
            assert!(axis.max > axis.min && axis.ticks().len() >= 2, "{axis:?}");
            assert!(axis.place(axis.min).abs() < 1e-9 && (axis.place(axis.max) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn numbers_are_written_with_their_units() {
        assert_eq!(micros(1500.0), "1.5 ms");
        assert_eq!(micros(2_000_000.0), "2 s");
        assert_eq!(count(800_000.0), "800 k");
        assert_eq!(count(1_250_000.0), "1.25 M");
        assert_eq!(short(0.5), "0.5");
    }

    #[test]
    fn text_from_outside_cannot_leave_its_place() {
        assert_eq!(escape("<b>\"&"), "&lt;b&gt;&quot;&amp;");
    }
}
