"""Where records come from: files of several formats, cut into chunks at record boundaries."""
