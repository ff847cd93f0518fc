"""What to do when the compiled part does not load. Loaded only then."""

import sysconfig


def explain(error: ImportError) -> str:
    """The message of the ImportError that the user sees."""
    if error.name == "_cffi_backend" and isinstance(error, ModuleNotFoundError):
        return "pyruntime needs cffi 2.1.1 or newer: python -m pip install 'cffi>=2.1.1'"
    if "subinterpreters" in str(error):
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            return (
                "pyruntime cannot be imported in a subinterpreter of a free-threaded Python, because cffi cannot; "
                "import it in the main interpreter"
            )
        return (
            "pyruntime cannot be imported in a Python interpreter with a GIL of its own, because cffi cannot; "
            "import it in the main interpreter, or in one that shares its GIL"
        )
    if "cannot import name '_core'" in str(error):
        return (
            "pyruntime._core, the compiled part of pyruntime, is missing for this Python: install the package with "
            "'python -m pip install pyruntime-ft', or a source tree with 'python -m pip install -e .' in its root"
        )
    return f"the compiled part of pyruntime does not load: {error}"
