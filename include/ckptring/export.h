// Symbol visibility of the shared library. Everything not marked is hidden.
#pragma once

#define CKPTRING_API __attribute__((visibility("default")))
