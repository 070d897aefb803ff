//! The terminal while the view has it. It is given back on every way out: at the end, after an error, and
//! before a panic says what it is about.

use std::io::{self, ErrorKind, IsTerminal, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::draw::{Theme, draw};
use super::model::{Key, Model};
use crate::tools::cli::output;

/// Whether there is something to give back.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// What came from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Key(Key),
    /// It has another size.
    Resized,
    /// A key that does nothing, or nothing in this time.
    Nothing,
}

/// The terminal, until this is dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Whether there is a terminal to draw on and to read keys from.
    pub fn is_there() -> bool {
        io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal.
    pub fn open() -> io::Result<Self> {
        // Given back before a panic is told, or nobody would read it.
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            tell(panic);
        }));
        let theme = Theme {
            has_colours: output::may_colour(&io::stdout()),
        };
        IS_OPEN.store(true, Ordering::Release);
        let opened = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self { terminal, theme }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Whether it is still this view's: another thread that panicked has given it back.
    pub fn is_open(&self) -> bool {
        IS_OPEN.load(Ordering::Acquire)
    }

    /// Shows a model.
    pub fn show(&mut self, model: &Model) -> io::Result<()> {
        self.terminal
            .draw(|frame| draw(model, self.theme, frame))
            .map(drop)
    }

    /// What comes next, if anything does in this time.
    pub fn input(&self, wait: Duration) -> io::Result<Input> {
        let came = event::poll(wait).and_then(|is_there| is_there.then(event::read).transpose());
        match came {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Input::Nothing),
            Err(error) => Err(error),
            Ok(None) => Ok(Input::Nothing),
            Ok(Some(Event::Resize(..))) => Ok(Input::Resized),
            Ok(Some(Event::Key(key))) => Ok(key_of(key).map_or(Input::Nothing, Input::Key)),
            Ok(Some(_)) => Ok(Input::Nothing),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was, once. Nobody is left who could be told that it fails.
fn give_back() {
    if IS_OPEN.swap(false, Ordering::AcqRel) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'C') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char(_)
            if key
                .modifiers
                .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
        {
            None
        }
        KeyCode::Char(letter) => Some(Key::Letter(letter)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_c_quits_and_other_letters_with_ctrl_do_nothing() {
        let of = |code, modifiers| key_of(KeyEvent::new(code, modifiers));
        assert_eq!(
            of(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Interrupt)
        );
        assert_eq!(of(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
        assert_eq!(
            of(KeyCode::Char('?'), KeyModifiers::SHIFT),
            Some(Key::Letter('?'))
        );
        assert_eq!(of(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Escape));
        assert_eq!(of(KeyCode::F(1), KeyModifiers::NONE), None);
    }
}
