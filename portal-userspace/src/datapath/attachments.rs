//! The kernel's table of attachments: which frames belong to which zone.

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapData};
use portal_common::tables::{Attachment, ZONE_PROBES, ZONE_ROWS, Zone, ZoneRow};

use super::pins::MAX_ATTACHMENTS;

/// The table: a hash table in an array, which the gate reads without a call. A row is one word, so that each change is one step.
pub(super) struct AttachmentTable(Array<MapData, ZoneRow>);

impl AttachmentTable {
    /// The table in this map.
    pub(super) fn new(map: Array<MapData, ZoneRow>) -> Self {
        Self(map)
    }

    /// From now on frames of this attachment belong to this zone.
    pub(super) fn insert(&mut self, attachment: Attachment, zone: Zone) -> Result<()> {
        let mut free = None;
        for row in rows_of(attachment) {
            match self.read(row)?.get() {
                Some((present, _)) if present == attachment => return self.write(row, ZoneRow::new(attachment, zone)),
                None if free.is_none() => free = Some(row),
                _ => {}
            }
        }
        let used = self.rows()?.len();
        match free {
            Some(row) if used < MAX_ATTACHMENTS as usize => self.write(row, ZoneRow::new(attachment, zone)),
            _ => bail!(
                "there is no room for another zone: {used} of {MAX_ATTACHMENTS} interfaces and VLANs have one; detach one first"
            ),
        }
    }

    /// From now on frames of this attachment belong to no zone.
    pub(super) fn remove(&mut self, attachment: Attachment) -> Result<()> {
        for row in rows_of(attachment) {
            if self.read(row)?.get().is_some_and(|(present, _)| present == attachment) {
                self.write(row, ZoneRow::NONE)?;
            }
        }
        Ok(())
    }

    /// To which zone frames of this attachment belong.
    pub(super) fn get(&self, attachment: Attachment) -> Result<Option<Zone>> {
        for row in rows_of(attachment) {
            if let Some(zone) = self.read(row)?.zone_of(attachment) {
                return Ok(Some(zone));
            }
        }
        Ok(None)
    }

    /// Every attachment with its zone.
    pub(super) fn rows(&self) -> Result<Vec<(Attachment, Zone)>> {
        (0..ZONE_ROWS).filter_map(|row| self.read(row).map(ZoneRow::get).transpose()).collect()
    }

    fn read(&self, row: u32) -> Result<ZoneRow> {
        self.0.get(&row, 0).context("cannot read which frames belong to which zone")
    }

    fn write(&mut self, index: u32, row: ZoneRow) -> Result<()> {
        self.0.set(index, row, 0).context("cannot tell the gate which frames belong to which zone")
    }
}

/// The rows at which the gate looks for an attachment.
fn rows_of(attachment: Attachment) -> impl Iterator<Item = u32> {
    (0..ZONE_PROBES).map(move |probe| (attachment.row() + probe) & (ZONE_ROWS - 1))
}
