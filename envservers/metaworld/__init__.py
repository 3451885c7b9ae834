"""MetaWorld's 50 tasks (`metaworld` 3.1.1) as a suite. Imports no simulator until one is made."""
