"""The long runs behind the promises: each tries one promise many times, for real, and says what came through."""
