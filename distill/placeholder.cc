// Keeps the build whole until this part has its first source.
