"""Ardour, as Debian's package `ardour` installs it: its interpreter of Lua opens sessions without a display."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

LUA = shutil.which("ardour7-lua") or shutil.which("ardour8-lua") or shutil.which("ardour9-lua")
SECONDS = 120.0

DESCRIBE = """
local s = load_session(os.getenv("SESSION_FOLDER"), os.getenv("SESSION_NAME"))
assert(s, "Ardour can't open the session")
local function text(value) return string.format("%q", value):gsub("\\\\\\n", "\\\\n") end
local function line(...) print("RESULT " .. table.concat({...}, " ")) end
line(string.format('{"kind": "session", "rate": %d}', s:nominal_sample_rate()))
for route in s:get_routes():iter() do
  local track = route:to_track()
  line(string.format('{"kind": "route", "name": %s, "gain": %.9f, "muted": %s, "colour": %d}', text(route:name()),
    route:gain_control():get_value(), tostring(route:muted()), route:presentation_info_ptr():color()))
  if not track:isnil() then
    for region in track:playlist():region_list():iter() do
      local audio, midi = region:to_audioregion(), region:to_midiregion()
      local peak, channels, notes = 0, 0, 0
      if not audio:isnil() then peak, channels = audio:maximum_amplitude(nil), audio:n_channels() end
      if not midi:isnil() then
        for _ in ARDOUR.LuaAPI.note_list(midi:model()):iter() do notes = notes + 1 end
      end
      local form = '{"kind": "region", "track": %s, "position": %d, "length": %d, "peak": %.6f, ' ..
        '"channels": %d, "notes": %d}'
      local position, length = region:position():samples(), region:length():samples()
      line(string.format(form, text(route:name()), position, length, peak, channels, notes))
    end
  end
end
for location in s:locations():list():iter() do
  local start = location:start():samples()
  line(string.format('{"kind": "location", "name": %s, "start": %d}', text(location:name()), start))
end
local map = Temporal.TempoMap.read()
for seconds in string.gmatch(os.getenv("SESSION_TIMES"), "[^ ]+") do
  local position = Temporal.timepos_t(math.floor(tonumber(seconds) * s:nominal_sample_rate() + 0.5))
  line(string.format('{"kind": "time", "seconds": %s, "bbt": "%s"}', seconds, map:bbt_at(position):str()))
end
close_session()
quit()
"""
"""Prints what Ardour makes of a session, one object of JSON a line."""

CREATE = """
local s = create_session(os.getenv("SESSION_FOLDER"), os.getenv("SESSION_NAME"), 48000)
assert(s, "Ardour can't create a session")
s:new_audio_track(1, 2, nil, 1, "audio", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
s:new_midi_track(ARDOUR.ChanCount(ARDOUR.DataType("midi"), 1), ARDOUR.ChanCount(ARDOUR.DataType("audio"), 2), true,
  ARDOUR.PluginInfo(), nil, nil, 1, "midi", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
local map = Temporal.TempoMap.write_copy()
map:set_tempo(Temporal.Tempo(124.5, 124.5, 4), Temporal.timepos_t(0))
map:set_tempo(Temporal.Tempo(100, 100, 4), Temporal.timepos_t(48000 * 4))
map:set_meter(Temporal.Meter(3, 4), Temporal.timepos_t(0))
Temporal.TempoMap.update(map)
local range = s:locations():add_range(Temporal.timepos_t(0), Temporal.timepos_t(48000 * 3))
s:save_state("", false, false, false, false, false)
close_session()
quit()
"""
"""Creates a session with a track of each kind, two tempi, a metre and a range."""


def run_lua(script: str, folder: Path, name: str, home: Path, times: tuple[float, ...] = ()) -> str:
    """Runs a script in Ardour, with settings of its own, and returns what it prints."""
    assert LUA is not None
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "SESSION_FOLDER": str(folder),
        "SESSION_NAME": name,
        "SESSION_TIMES": " ".join(map(str, times)),
    }
    file = home / "script.lua"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [LUA, str(file)], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error: " not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def describe(folder: Path, name: str, home: Path, times: tuple[float, ...] = ()) -> list[dict[str, Any]]:
    """Opens a session in Ardour, and returns what it says about it, and the bar at each of the times."""
    printed = run_lua(DESCRIBE, folder, name, home, times)
    return [json.loads(line.removeprefix("RESULT ")) for line in printed.splitlines() if line.startswith("RESULT ")]
