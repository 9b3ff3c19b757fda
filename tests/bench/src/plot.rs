//! Plots, as SVG. Each names the machine and the kernel that its figures are from.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use crate::{machine::Machine, report::figure};

/// plotters' errors have a type for each backend.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A plot of one or several series.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The file's name, without directory and ending.
    pub file: &'static str,
    /// What it shows.
    pub title: String,
    /// What is to the right, and its unit.
    pub x: String,
    /// What is upwards, and its unit.
    pub y: String,
    /// Whether the scale to the right is logarithmic, as for numbers of clients.
    pub log_x: bool,
    /// Whether the scale upwards is.
    pub log_y: bool,
    /// A line each.
    pub series: Vec<Series>,
    /// Names of the places to the right, at x = 0, 1, 2...: makes it a plot of bars.
    pub places: Vec<String>,
}

/// One line of a plot, or the bars of one colour.
#[derive(Clone, Debug)]
pub struct Series {
    /// Whose it is.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

impl Plot {
    /// An empty plot of lines.
    pub fn new(file: &'static str, title: impl Into<String>, x: impl Into<String>, y: impl Into<String>) -> Self {
        let (title, x, y) = (title.into(), x.into(), y.into());
        Self { file, title, x, y, log_x: false, log_y: false, series: Vec::new(), places: Vec::new() }
    }

    /// A plot of bars, one for each name and figure.
    pub fn bars(file: &'static str, title: impl Into<String>, y: impl Into<String>, bars: &[(String, f64)]) -> Self {
        let mut plot = Self::new(file, title, "", y);
        plot.places = bars.iter().map(|(name, _)| name.clone()).collect();
        let points = bars.iter().enumerate().map(|(i, (_, value))| (i as f64, *value)).collect();
        plot.series.push(Series { name: String::new(), points });
        plot
    }

    /// Makes the scale to the right logarithmic.
    #[must_use]
    pub fn log_x(self) -> Self {
        Self { log_x: true, ..self }
    }

    /// Makes the scale upwards logarithmic.
    #[must_use]
    pub fn log_y(self) -> Self {
        Self { log_y: true, ..self }
    }

    /// Adds a line.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        self.series.push(Series { name: name.into(), points });
        self
    }

    /// Draws it into the directory.
    pub fn draw(&self, directory: &Path, machine: &Machine) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(self.file).with_extension("svg");
        self.draw_at(&path, machine).map_err(|e| anyhow!("cannot draw {}: {e}", path.display()))
    }

    fn draw_at(&self, path: &Path, machine: &Machine) -> Drawn {
        let (x, y) = (self.range(|point| point.0, self.log_x), self.range(|point| point.1, self.log_y));
        match (self.log_x, self.log_y) {
            (false, false) => self.draw_with(path, machine, x.0..x.1, y.0..y.1),
            (true, false) => self.draw_with(path, machine, (x.0..x.1).log_scale(), y.0..y.1),
            (false, true) => self.draw_with(path, machine, x.0..x.1, (y.0..y.1).log_scale()),
            (true, true) => self.draw_with(path, machine, (x.0..x.1).log_scale(), (y.0..y.1).log_scale()),
        }
    }

    /// What an axis shows: from zero, or, where it is logarithmic, from the power of ten below the least.
    fn range(&self, of: impl Fn(&(f64, f64)) -> f64, log: bool) -> (f64, f64) {
        let values = || self.series.iter().flat_map(|series| series.points.iter().map(&of));
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        if log {
            let least = values().filter(|value| *value > 0.0).fold(most, f64::min);
            return (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()));
        }
        (values().fold(0.0, f64::min), most * 1.1)
    }

    fn draw_with<X, Y>(&self, path: &Path, machine: &Machine, x: X, y: Y) -> Drawn
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        const SIZE: (u32, u32) = (1060, 480);
        /// Room for the series' names, beside the lines: over them they would hide some.
        const NAMES: u32 = 300;
        /// Room for the last number below the axis.
        const LAST: u32 = 30;
        const FONT: &str = "sans-serif";
        const MARGIN: i32 = 14;
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (root, foot) = root.split_vertically(SIZE.1 - 26);
        foot.draw(&Text::new(machine.words(), (MARGIN, 4), (FONT, 12).into_font().color(&BLACK.mix(0.6))))?;
        if !self.places.is_empty() {
            return self.draw_bars(&root);
        }
        let (lines, names) = root.split_horizontally(SIZE.0 - NAMES);
        let mut chart = ChartBuilder::on(&lines)
            .caption(&self.title, (FONT, 18))
            .margin(MARGIN)
            .margin_right(LAST)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(x, y)?;
        let label = |value: &f64| figure(*value);
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .light_line_style(BLACK.mix(0.05))
            .draw()?;
        for (i, series) in self.series.iter().enumerate() {
            let color = Palette99::pick(i).mix(1.0);
            chart.draw_series(LineSeries::new(series.points.iter().copied(), color.stroke_width(2)).point_size(3))?;
            let y = 60 + 22 * i as u32;
            let at = |x: i32, up: i32| (x, y.cast_signed() - up);
            names.draw(&PathElement::new([at(0, 0), at(18, 0)], color.stroke_width(2)))?;
            names.draw(&Text::new(series.name.clone(), at(26, 7), (FONT, 13)))?;
        }
        root.present()?;
        Ok(())
    }

    /// Bars that lie, so that their names have room.
    fn draw_bars(&self, root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn {
        const FONT: &str = "sans-serif";
        const NAMES: i32 = 300;
        let root = root.titled(&format!("{} ({})", self.title, self.y), (FONT, 18))?;
        let (width, height) = root.dim_in_pixel();
        let points = &self.series[0].points;
        let most = points.iter().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
        let longest = f64::from(width.cast_signed() - NAMES - 110);
        let step = height / (points.len() as u32).max(1);
        for (i, ((_, value), name)) in points.iter().zip(&self.places).enumerate() {
            let top = (step * i as u32 + step / 8).cast_signed();
            let bottom = top + (step * 3 / 4).min(40).cast_signed();
            let long = ((value / most) * longest).max(1.0) as i32;
            let color = Palette99::pick(usize::from(i > 0)).mix(0.9);
            root.draw(&Rectangle::new([(NAMES, top), (NAMES + long, bottom)], color.filled()))?;
            let text = |text: String, x| Text::new(text, (x, i32::midpoint(top, bottom) - 7), (FONT, 14).into_font());
            root.draw(&text(name.clone(), 14))?;
            root.draw(&text(figure(*value), NAMES + long + 8))?;
        }
        root.present()?;
        Ok(())
    }
}
