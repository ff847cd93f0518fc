/* sample_cxx.cc -- an extension in C++: it links nothing of pyruntime, and uses the runtime that the process already has by the types of
 * <pyruntime/pyruntime.hpp>.
 *
 * It keeps a sum under a lock, settings that are read without one, and a name that is counted.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pyruntime/capi.h>
#include <pyruntime/pyruntime.hpp>

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>

namespace {

struct settings {
    std::string text;
    explicit settings(const char *given) : text(given)
    {
        living++;
    }
    ~settings()
    {
        living--;
    }
    static std::atomic<long> living;
};

std::atomic<long> settings::living{0};

using name_object = pyruntime::object<std::string>;

/* The locks need no runtime, so they are ready when the file is loaded. */
pyruntime::mutex sum_mutex;
pyruntime::shared_mutex shared;
long sum;
std::atomic<settings *> current;
pyruntime::object_slot<name_object> newest;

/* Whatever a function throws is an exception of Python's. */
template <class Call>
PyObject *
answer(const Call &call)
{
    try {
        return call();
    } catch (const std::bad_alloc &) {
        return PyErr_NoMemory();
    } catch (const std::system_error &error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
}

PyObject *
runtime_address(PyObject *, PyObject *)
{
    return PyLong_FromVoidPtr(pyrt_interp_main());
}

/* add(n, times) -> sum: without the GIL, so that threads are at it at once. */
PyObject *
add(PyObject *, PyObject *args)
{
    long n, times, result = 0;
    if (!PyArg_ParseTuple(args, "ll", &n, &times)) {
        return nullptr;
    }
    return answer([&] {
        PyThreadState *python = PyEval_SaveThread();
        for (long i = 0; i < times; i++) {
            std::scoped_lock guard(sum_mutex, shared);
            sum += n;
            result = sum;
        }
        PyEval_RestoreThread(python);
        return PyLong_FromLong(result);
    });
}

/* replace(text): readers that look at the old settings go on doing so. */
PyObject *
replace(PyObject *, PyObject *arg)
{
    const char *text = PyUnicode_AsUTF8(arg);
    if (text == nullptr) {
        return nullptr;
    }
    return answer([&] {
        pyruntime::retired<settings> old(current.exchange(pyruntime::make_retired<settings>(text).release()));
        Py_RETURN_NONE;
    });
}

PyObject *
look(PyObject *, PyObject *)
{
    return answer([] {
        pyruntime::reader reading;
        const settings *found = current.load(std::memory_order_acquire);
        return PyUnicode_FromString(found == nullptr ? "" : found->text.c_str());
    });
}

PyObject *
living(PyObject *, PyObject *)
{
    return PyLong_FromLong(settings::living.load());
}

/* name(text) -> what weak and strong pointers say of it, when it has been replaced and dropped. */
PyObject *
name(PyObject *, PyObject *arg)
{
    const char *text = PyUnicode_AsUTF8(arg);
    if (text == nullptr) {
        return nullptr;
    }
    return answer([&] {
        pyruntime::attached thread;
        pyruntime::object_type<std::string> type(pyrt_interp_main(), "name");
        pyruntime::object_ptr<name_object> made = type.make(thread, text);
        newest.store(made);
        pyruntime::weak_ptr<name_object> weak(thread, made);
        bool alive = weak.lock() == newest.load() && newest.load() == made;
        std::string found = newest.load()->value;
        newest.store(nullptr);
        made.reset();
        return Py_BuildValue("(sOO)", found.c_str(), alive ? Py_True : Py_False, weak.lock() ? Py_True : Py_False);
    });
}

/* deadlock(): asks for what it holds. */
PyObject *
deadlock(PyObject *, PyObject *)
{
    return answer([] {
        std::shared_lock reading(shared);
        std::unique_lock writing(shared);
        Py_RETURN_NONE;
    });
}

/* drop(address): gives up a reference to an object of any extension. */
PyObject *
drop(PyObject *, PyObject *arg)
{
    auto *object = static_cast<pyrt_object *>(PyLong_AsVoidPtr(arg));
    if (object == nullptr) {
        return nullptr;
    }
    return answer([&] {
        pyruntime::attached thread;
        pyrt_decref(object);
        Py_RETURN_NONE;
    });
}

/* count(address): adds to the first of two words, attached and without the GIL, until the second is 0. */
PyObject *
count(PyObject *, PyObject *arg)
{
    auto *words = static_cast<long *>(PyLong_AsVoidPtr(arg));
    if (words == nullptr) {
        return nullptr;
    }
    return answer([&] {
        pyruntime::attached attached;
        pyrt_thread *thread = pyrt_thread_current();
        PyThreadState *python = PyEval_SaveThread();
        while (pyrt_load_relaxed(&words[1]) != 0) {
            (void)pyrt_fetch_add_relaxed(&words[0], 1L);
            pyrt_safepoint(thread);
        }
        PyEval_RestoreThread(python);
        Py_RETURN_NONE;
    });
}

/* stands_still(address) -> whether nobody adds to the word while this one has stopped the world. */
PyObject *
stands_still(PyObject *, PyObject *arg)
{
    auto *word = static_cast<long *>(PyLong_AsVoidPtr(arg));
    if (word == nullptr) {
        return nullptr;
    }
    return answer([&] {
        pyruntime::check(pyrt_stop_the_world(nullptr), "stands_still");
        long before = pyrt_load_relaxed(word);
        bool still = true;
        for (int i = 0; i < 1000 && still; i++) {
            std::this_thread::yield();
            still = pyrt_load_relaxed(word) == before;
        }
        pyrt_start_the_world(nullptr);
        return PyBool_FromLong(still);
    });
}

PyMethodDef methods[] = {
    {"runtime_address", runtime_address, METH_NOARGS, nullptr},
    {"add", add, METH_VARARGS, nullptr},
    {"replace", replace, METH_O, nullptr},
    {"look", look, METH_NOARGS, nullptr},
    {"living", living, METH_NOARGS, nullptr},
    {"name", name, METH_O, nullptr},
    {"deadlock", deadlock, METH_NOARGS, nullptr},
    {"drop", drop, METH_O, nullptr},
    {"count", count, METH_O, nullptr},
    {"stands_still", stands_still, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

int
module_exec(PyObject *)
{
    return pyruntime_import();
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void *>(module_exec)},
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "sample_cxx", nullptr, 0, methods, slots, nullptr, nullptr, nullptr,
};

} // namespace

PyMODINIT_FUNC
PyInit_sample_cxx(void)
{
    return PyModuleDef_Init(&definition);
}
