//! TCP's flags (RFC 9293 section 3.1), as they stand in byte 13 of the header.

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Ends it at once.
pub const RST: u8 = 0x04;
/// Hand the data to the application.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
