"""A program with quotes, comments and brackets; the tour shows the same."""

EXAMPLE = '''def greet(name, loud=False):
    """Return a greeting for `name`; "loud" adds marks."""
    text = "Hello, " + name  # the "usual" words
    if loud:
        text = text.upper() + ("!" * 3)
    return {"text": text, "kind": 'greeting', "length": len(text)}


print(greet("world", loud=True)["text"])
names = ["Ada Lovelace", 'Grace Hopper', "Alan (the first) Turing"]
for number, name in enumerate(names):
    print(number, greet(name, loud=(number == 2)), sep=": ", end="\\n")
'''
