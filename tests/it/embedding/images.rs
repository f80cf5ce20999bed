//! Images of cameras, sizes and depths that the emoji lack.

use std::path::Path;

use compat_audit::config::{ModelConfig, ResizeFilter, ResizeMode, Size};
use compat_audit::domain::FindingCode;
use image::{DynamicImage, ImageBuffer, Rgb, RgbImage};

use super::{codes, embed_raw, identity_folders, max_difference, odd, picture, read_probe};
use crate::run::Audit;

fn audit(probe: &Path) -> Audit {
    Audit::run(
        &odd("plain.onnx"),
        &odd("u8_nhwc.onnx"),
        probe,
        &["--no-cache"],
    )
}

fn save(folder: &Path, name: &str, image: &RgbImage) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    image.save(file).expect("written");
}

#[test]
fn market_1501_names_give_cameras_junk_and_distractors() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |folder_name: &str, name: &str, image: &RgbImage| {
        save(&folder.path().join(folder_name), name, image);
    };
    let (query, gallery) = ("query", "bounding_box_test");
    for identity in 1..=4 {
        put(
            query,
            &format!("000{identity}_c1s1_000001_00.png"),
            &picture(identity, 0, 8, 8),
        );
        // The same camera: junk for this query. Two other cameras: to be found.
        put(
            gallery,
            &format!("000{identity}_c1s1_000009_00.png"),
            &picture(identity, 1, 8, 8),
        );
        put(
            gallery,
            &format!("000{identity}_c2s1_000001_00.png"),
            &picture(identity, 2, 8, 8),
        );
        put(
            gallery,
            &format!("000{identity}_c3s1_000001_00.png"),
            &picture(identity, 3, 8, 8),
        );
    }
    // Only its own camera in the gallery: nothing to find.
    put(query, "0005_c1s1_000001_00.png", &picture(5, 0, 8, 8));
    put(gallery, "0005_c1s1_000009_00.png", &picture(5, 1, 8, 8));
    // A byte-identical copy of the query, of another camera.
    put(query, "0006_c1s1_000001_00.png", &picture(6, 0, 8, 8));
    put(gallery, "0006_c4s1_000001_00.png", &picture(6, 0, 8, 8));
    put(gallery, "0006_c2s1_000001_00.png", &picture(6, 1, 8, 8));
    put(gallery, "0000_c1s1_000001_00.png", &picture(7, 0, 8, 8));
    put(gallery, "-1_c2s1_000001_00.png", &picture(8, 0, 8, 8));

    let audit = audit(folder.path());
    let probe = &audit.report["probe"];
    let expected = serde_json::json!({
        "items": 6 + 12 + 1 + 2 + 2,
        "queries": 5,
        "queries_excluded": 1,
        "gallery": 12 + 1 + 2 + 1,
        "cameras": 4,
        "junk": 1,
        "distractors": 1,
        "identical_pairs": 1,
        "same_camera_pairs": 4,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(probe[key], *value, "{key}");
    }
    assert!(
        audit.findings().contains(&"queries-excluded"),
        "{:?}",
        audit.findings()
    );
}

/// The picture nearest to query i, one level of one pixel away, is of its own camera; the next ones, of other cameras, show
/// another identity. So CMC@1 is 0 with cameras and 1 without, by construction.
#[test]
fn pictures_of_the_querys_camera_are_not_found() {
    const IDENTITIES: u32 = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let mut rows = Vec::new();
    for identity in 0..IDENTITIES {
        let own = picture(identity, 0, 8, 8);
        let mut near = own.clone();
        near.get_pixel_mut(0, 0).0[0] ^= 1;
        let other = picture((identity + 1) % IDENTITIES, 10 + identity, 8, 8);
        for (image, role, camera) in [
            (own, "query", "a"),
            (near, "gallery", "a"),
            (other, "gallery", "b"),
        ] {
            let name = format!("{identity}-{role}-{camera}.png");
            save(folder.path(), &name, &image);
            rows.push(format!("{name},{identity},{role},{camera}\n"));
        }
    }
    let manifest = folder.path().join("manifest.csv");
    let with_cameras = format!("path,identity,role,camera\n{}", rows.concat());
    std::fs::write(&manifest, &with_cameras).expect("written");
    let seen = audit(folder.path());
    assert_eq!(seen.report["probe"]["same_camera_pairs"], IDENTITIES);
    assert_eq!(seen.measure("old->old", "CMC@1"), 0.0);
    assert_eq!(seen.measure("new->old", "CMC@1"), 0.0);

    std::fs::write(&manifest, with_cameras.replacen("camera", "session", 1)).expect("written");
    let unseen = audit(folder.path());
    assert_eq!(unseen.report["probe"]["same_camera_pairs"], 0);
    assert_eq!(unseen.measure("old->old", "CMC@1"), 1.0);
    assert!(unseen.findings().contains(&"no-cameras"));
}

#[test]
fn twins_are_removed_and_listed_above_1_percent() {
    let folder = tempfile::tempdir().expect("a folder");
    identity_folders(folder.path(), 12, 3);
    // The same pixels in another file format and of another identity.
    let twin = picture(0, 0, 8, 8);
    save(folder.path(), "id005/0.bmp", &twin);
    let audit_of = audit(folder.path());
    // Every item is query and gallery: the pair counts both ways.
    assert_eq!(audit_of.report["probe"]["identical_pairs"], 2);
    let finding = audit_of.report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .find(|finding| finding["code"] == "duplicate-inputs")
        .expect("2 of 37 items are twins");
    assert_eq!(
        finding["items"],
        serde_json::json!(["id000/0.png", "id005/0.bmp"])
    );

    // 2 of 253 items.
    identity_folders(folder.path(), 84, 3);
    let audit_of = audit(folder.path());
    assert_eq!(audit_of.report["probe"]["identical_pairs"], 2);
    assert!(!audit_of.findings().contains(&"duplicate-inputs"));
}

/// Embeds 8 x 8 pictures and the same pictures as `disguise` writes them; `config` must undo it.
fn undoes(config: &ModelConfig, disguise: impl Fn(&RgbImage) -> DynamicImage) -> Vec<FindingCode> {
    let folders = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
    for identity in 0..3 {
        for shot in 0..2 {
            let name = format!("id{identity}/{shot}.png");
            let plain = picture(identity, shot, 8, 8);
            save(folders[0].path(), &name, &plain);
            let file = folders[1].path().join(&name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            disguise(&plain).save(file).expect("written");
        }
    }
    let [plain, disguised] = [&folders[0], &folders[1]].map(|folder| read_probe(folder.path()));
    let plain = embed_raw(&plain, &odd("plain.onnx"), &ModelConfig::default());
    let disguised = embed_raw(&disguised, &odd("plain.onnx"), config);
    for item in 0..6 {
        let [a, b] = [&plain, &disguised].map(|e| e.embeddings.get(item).expect("an embedding"));
        assert_eq!(max_difference(&a, &b), 0.0, "item {item}");
    }
    codes(&disguised.findings)
}

/// The picture in a frame of other colours, `left` and `top` pixels from its corner.
fn framed(picture: &RgbImage, width: u32, height: u32, left: u32, top: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| {
        let inside = (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
        if inside {
            *picture.get_pixel(x - left, y - top)
        } else {
            Rgb([255, 0, 255])
        }
    })
    .into()
}

#[test]
fn other_sizes_are_resized_and_cropped_as_configured() {
    let nearest = ModelConfig {
        filter: Some(ResizeFilter::Nearest),
        ..ModelConfig::default()
    };
    // The model's own size is the target.
    undoes(&nearest, |picture| {
        RgbImage::from_fn(24, 16, |x, y| *picture.get_pixel(x / 3, y / 2)).into()
    });
    let crop = ModelConfig {
        size: Some(Size::Square(12)),
        crop: Some(Size::Square(8)),
        ..ModelConfig::default()
    };
    undoes(&crop, |picture| framed(picture, 12, 12, 2, 2));
    for (mode, left) in [
        // round((21 - 8) / 2), half to even; and (21 - 8) // 2.
        (ResizeMode::ShorterSideTorchvision, 6),
        (ResizeMode::ShorterSideHuggingface, 6),
    ] {
        let config = ModelConfig {
            resize: Some(mode),
            ..crop.clone()
        };
        undoes(&config, |picture| framed(picture, 21, 12, left, 2));
    }
    // 8 + 15: half to even is 8, floor is 7.
    for (mode, left) in [
        (ResizeMode::ShorterSideTorchvision, 8),
        (ResizeMode::ShorterSideHuggingface, 7),
    ] {
        let config = ModelConfig {
            resize: Some(mode),
            ..crop.clone()
        };
        undoes(&config, |picture| framed(picture, 23, 12, left, 2));
    }
}

#[test]
fn sixteen_bits_are_scaled_and_said() {
    let found = undoes(&ModelConfig::default(), |picture| {
        let wide: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_fn(8, 8, |x, y| {
            Rgb(picture.get_pixel(x, y).0.map(|v| u16::from(v) * 257))
        });
        DynamicImage::ImageRgb16(wide)
    });
    assert!(found.contains(&FindingCode::SixteenBitScaled), "{found:?}");
    // Alpha is dropped, not blended, and is no finding.
    let found = undoes(&ModelConfig::default(), |picture| {
        let mut alpha = DynamicImage::from(picture.clone()).to_rgba8();
        alpha.pixels_mut().for_each(|pixel| pixel.0[3] = 7);
        alpha.into()
    });
    assert_eq!(found, [FindingCode::PreprocessingAssumed]);
}

#[test]
fn names_need_not_be_ascii() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = folder.path().join("Größe 東京");
    identity_folders(&probe, 4, 2);
    std::fs::rename(probe.join("id000"), probe.join("été 100 %")).expect("renamed");
    let models = folder.path().join("modèle neuf");
    std::fs::create_dir(&models).expect("a folder");
    for file in ["model.onnx", "weights.bin"] {
        std::fs::copy(odd("external_a").join(file), models.join(file)).expect("copied");
    }
    let audit = Audit::run(
        &odd("plain.onnx"),
        &models.join("model.onnx"),
        &probe,
        &["--no-cache"],
    );
    assert_eq!(audit.report["probe"]["queries"], 8);
}
