"""Where the recipes' example tables come from: packages that are installed. Nothing is downloaded."""
