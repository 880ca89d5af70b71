//! The size of a terminal.

use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};

/// Rows and columns of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// From top to bottom.
    pub rows: u16,
    /// From left to right.
    pub columns: u16,
}

impl WindowSize {
    pub(crate) fn numbers(self) -> (u16, u16) {
        (self.rows, self.columns)
    }

    /// As the kernel takes it; it has no idea of pixels.
    pub(crate) fn kernel(self) -> Winsize {
        Winsize {
            ws_row: self.rows,
            ws_col: self.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }
}
