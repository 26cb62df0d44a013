"""Sessions for DAWs: takes with their tempo, sections, stems and notes, as Ardour, REAPER and DAWproject files."""
