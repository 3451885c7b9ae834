"""Whether EGL, OSMesa and Vulkan work here: each really tried, in a process of its own.

    python envservers/graphics_probe.py egl

prints one JSON object. A driver may crash or leave threads behind, which is why nobody tries it in
a process that has other work. Standard library alone, no import of this project: any interpreter
can run the file.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_uint32, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_SECONDS = 60.0
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
_GL_RENDERER, _GL_VERSION = 0x1F01, 0x1F02


class Graphics(NamedTuple):
    """What trying one of them came to."""

    ok: bool
    text: str
    """Renderer and version; if it does not work, why."""
    device: int = 0
    """Number of the EGL device that drew."""
    hardware: bool = False
    """Whether that is a GPU."""
    mesa: int = 0
    """Major version of Mesa, if it is the driver."""


@lru_cache
def probe(kind: str) -> Graphics:
    """Try `egl`, `osmesa` or `vulkan` in a child process, once for this process."""
    command = [sys.executable, "-I", str(Path(__file__).resolve()), kind]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Graphics(False, f"it hung for {_SECONDS:g} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return Graphics(False, f"trying it ended with code {done.returncode}: {last}")
    return Graphics(**json.loads(done.stdout.splitlines()[-1]))


def _library(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    return None


def _gl_text(address: int | None) -> str:
    """Renderer and version of the current context, by its `glGetString`."""
    if not address:
        return ""
    get_string = ctypes.CFUNCTYPE(c_char_p, c_uint32)(address)
    return ", ".join((get_string(name) or b"").decode() for name in (_GL_RENDERER, _GL_VERSION))


def _drawn(text: str, device: int = 0) -> Graphics:
    software = any(word in text.lower() for word in _SOFTWARE)
    found = text.partition("Mesa ")[2].split(".")[0]
    return Graphics(True, text, device, not software, int(found) if found.isdigit() else 0)


def _egl() -> Graphics:
    """A context without a surface on each device, as MuJoCo makes it; a GPU's is preferred."""
    egl = _library("libEGL.so.1")
    if egl is None:
        return Graphics(False, "libEGL.so.1 is missing")
    if _library("libOpenGL.so.0", "libGL.so.1") is None:
        return Graphics(False, "libOpenGL.so.0 and libGL.so.1 are missing")
    egl.eglGetProcAddress.restype = c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_of = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not display_of:
        return Graphics(False, "libEGL.so.1 cannot list devices (EGL_EXT_device_enumeration)")
    devices, count = (c_void_p * 64)(), c_int()
    ctypes.CFUNCTYPE(c_uint32, c_int, c_void_p, POINTER(c_int))(query)(64, devices, byref(count))
    platform_display = ctypes.CFUNCTYPE(c_void_p, c_uint32, c_void_p, c_void_p)(display_of)
    found = []
    for number in range(count.value):
        text = _egl_text(egl, platform_display(0x313F, devices[number], None))
        if text:
            found.append(_drawn(text, number))
    if not found:
        return Graphics(False, f"libEGL.so.1 lists {count.value} devices, and none makes a context")
    return next((each for each in found if each.hardware), found[0])


def _egl_text(egl: ctypes.CDLL, display: int | None) -> str:
    """What draws on this display; empty if nothing does."""
    egl.eglCreateContext.restype = c_void_p
    nothing, shown = c_void_p(), c_void_p(display)
    if not display or not egl.eglInitialize(shown, nothing, nothing):
        return ""
    # Red, green, blue and alpha of 8 bits, depth of 24, RGB, pbuffer, desktop OpenGL.
    pairs = (0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24, 0x303F, 0x308E)
    wanted = (c_int * 17)(*pairs, 0x3033, 0x1, 0x3040, 0x8, 0x3038)
    config, count = c_void_p(), c_int()
    text = ""
    if egl.eglChooseConfig(shown, wanted, byref(config), 1, byref(count)) and count.value:
        egl.eglBindAPI(0x30A2)
        context = c_void_p(egl.eglCreateContext(shown, config, nothing, nothing))
        if context and egl.eglMakeCurrent(shown, nothing, nothing, context):
            text = _gl_text(egl.eglGetProcAddress(b"glGetString"))
    egl.eglTerminate(shown)
    return text


def _osmesa() -> Graphics:
    """A context that draws into 16 x 16 pixels of memory."""
    mesa = _library("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
    if mesa is None:
        return Graphics(False, "libOSMesa.so.8 is missing")
    mesa.OSMesaCreateContextExt.restype = mesa.OSMesaGetProcAddress.restype = c_void_p
    context = c_void_p(mesa.OSMesaCreateContextExt(0x1908, 24, 0, 0, None))
    pixels = ctypes.create_string_buffer(16 * 16 * 4)
    if not context or not mesa.OSMesaMakeCurrent(context, pixels, 0x1401, 16, 16):
        return Graphics(False, "libOSMesa makes no context")
    return _drawn(_gl_text(mesa.OSMesaGetProcAddress(b"glGetString")))


class _Application(Structure):
    _fields_ = (
        ("kind", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("version", c_uint32),
        ("engine", c_char_p),
        ("engine_version", c_uint32),
        ("api", c_uint32),
    )


class _Instance(Structure):
    _fields_ = (
        ("kind", c_int),
        ("next", c_void_p),
        ("flags", c_uint32),
        ("application", c_void_p),
        ("layers", c_uint32),
        ("layer_names", c_void_p),
        ("extensions", c_uint32),
        ("extension_names", c_void_p),
    )


class _Driver(Structure):
    _fields_ = (
        ("kind", c_int),
        ("next", c_void_p),
        ("number", c_int),
        ("name", c_char * 256),
        ("info", c_char * 256),
        ("conformance", c_uint32),
    )


class _Properties(Structure):
    _fields_ = (
        ("kind", c_int),
        ("next", c_void_p),
        ("api", c_uint32),
        ("driver", c_uint32),
        ("vendor", c_uint32),
        ("device", c_uint32),
        ("type", c_uint32),
        ("name", c_char * 256),
        ("rest", c_char * 2048),
    )


def _vulkan() -> Graphics:
    """An instance, and the drivers of its devices."""
    vulkan = _library("libvulkan.so.1")
    if vulkan is None:
        return Graphics(False, "libvulkan.so.1 is missing")
    application = _Application(api=(1 << 22) | (2 << 12))
    create, instance = _Instance(kind=1, application=ctypes.addressof(application)), c_void_p()
    error = vulkan.vkCreateInstance(byref(create), None, byref(instance))
    if error:
        return Graphics(False, f"no driver: vkCreateInstance answered {error}")
    devices, count = (c_void_p * 64)(), c_uint32(64)
    vulkan.vkEnumeratePhysicalDevices(instance, byref(count), devices)
    found = []
    for number in range(count.value):
        driver = _Driver(kind=1000196000)
        properties = _Properties(kind=1000059001, next=ctypes.addressof(driver))
        vulkan.vkGetPhysicalDeviceProperties2(c_void_p(devices[number]), byref(properties))
        found.append(_drawn(f"{properties.name.decode()}, {driver.info.decode()}", number))
    if not found:
        return Graphics(False, "no driver: there is no device")
    return next((each for each in found if each.hardware), found[0])


_PROBES = {"egl": _egl, "osmesa": _osmesa, "vulkan": _vulkan}


def main() -> None:
    """Print what trying the one named on the command line came to."""
    answer: dict[str, Any] = _PROBES[sys.argv[1]]()._asdict()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
