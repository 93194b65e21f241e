"""Where cases come from, one data set a file. Loaders read files of the user's; nothing is fetched."""
